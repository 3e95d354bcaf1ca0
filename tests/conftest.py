"""Eight fake CPU devices for every test, and the checks that only tests pay for."""

import os

# XLA's thread pool must hold a collective of eight devices on a machine with two cores.
os.environ.setdefault("NPROC", "16")

import jax
from jaxtyping import install_import_hook

jax.config.update("jax_num_cpu_devices", 8)
install_import_hook("kdjax", "beartype.beartype")
