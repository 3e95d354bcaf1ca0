"""How the processes of one job meet, wait for each other and part. Knows no model, data or loop.

Alone knows `jax.distributed`. Who takes part is what config and environment say, and Slurm, Open
MPI and Cloud TPU as JAX detects them.
"""

import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import NoReturn, TypeVar

import jax

# JAX has no public barrier with a timeout that leaves the devices alone.
from jax._src import distributed

# JAX has no public way to ask what it would detect without also acting on it.
from jax._src.clusters import GceTpuCluster, GkeTpuCluster, OmpiCluster, SlurmCluster

from kdjax.experiment import Processes
from kdjax.training.topology import Topology, check_same, resolve

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds a process waits for the coordinator in silence."""

DETECTORS = {
    "Open MPI": OmpiCluster,
    "Slurm": SlurmCluster,
    "TPU on Kubernetes": GkeTpuCluster,
    "Cloud TPU": GceTpuCluster,
}
"""What JAX recognises, in its own order."""

_broadcasts = itertools.count()


def connect(processes: Processes, environ: Mapping[str, str] = os.environ) -> None:
    """Join the other processes, if there are any: once, before any device is used.

    A single process is left without `jax.distributed`, and without a word. Raises ValueError for
    incomplete or contradictory settings, and for a coordinator that cannot be reached or whose port
    is taken; JAX itself would end the process from C++ with no address in sight. On the CPU Gloo
    adds lines of its own to the output. JAX's detection reads `os.environ`, whatever `environ` is.
    """
    topology = resolve(processes, environ)
    detection: str | None = "deactivate"
    if topology is None or topology.coordinator is None:
        topology = _detect(topology, processes.init_timeout, environ)
        # Slurm and Open MPI start a process for each GPU, and JAX's detection also picks the GPU.
        # Elsewhere it must stay off, or a process that has a whole node ends up with one GPU.
        detection = None
    if topology is None or topology.count == 1:
        return
    _reach(topology, processes.init_timeout)
    jax.distributed.initialize(
        topology.coordinator,
        topology.count,
        topology.index,
        cluster_detection_method=detection,
        initialization_timeout=processes.init_timeout,
        heartbeat_timeout_seconds=processes.heartbeat_timeout,
        shutdown_timeout_seconds=processes.shutdown_timeout,
    )
    _check(topology)


def meet(name: str, timeout: int = 3600) -> None:
    """Wait until every process is here; at once if there is only one.

    For work that one of them does alone at the end: those that left early would give up on it
    after the shutdown timeout, and take it down.
    """
    client = distributed.global_state.client
    if client is not None:
        client.wait_at_barrier(name, 1000 * timeout)


def from_first(value: T, timeout: int = 3600) -> T:
    """The first process's value, in all of them; `value` must survive JSON.

    For decisions that rest on files: what one process has just written, another may see or not.
    All must call it equally often.
    """
    client = distributed.global_state.client
    if client is None:
        return value
    key = f"kdjax/from_first/{next(_broadcasts)}"
    if distributed.global_state.process_id == 0:
        client.key_value_set(key, json.dumps(value))
        return value
    return json.loads(client.blocking_key_value_get(key, 1000 * timeout))


def abandon(code: int) -> NoReturn:
    """End a process that failed while connected, at once.

    An orderly exit would wait for the others, and they for the next collective of this one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _detect(expected: Topology | None, timeout: int, environ: Mapping[str, str]) -> Topology | None:
    """What JAX's own detection sees; ValueError unless it sees what the environment says."""
    source = next((name for name, c in DETECTORS.items() if c.is_env_present()), None)
    cluster = DETECTORS[source] if source else None
    if source is None or cluster is None or cluster.get_process_count() == 1:
        if expected is not None:
            raise ValueError(
                f"{expected.source} started process {expected.index}/{expected.count}, which JAX "
                f"{jax.__version__} does not recognise; set JAX_COORDINATOR_ADDRESS, NNODES and "
                "NODE_RANK."
            )
        return None
    port = environ.get("JAX_COORDINATOR_PORT")
    coordinator = cluster.get_coordinator_address(timeout, port)
    found = Topology(source, coordinator, cluster.get_process_count(), cluster.get_process_id())
    if expected is not None:
        check_same(expected, found)
    return found


def _reach(topology: Topology, timeout: int) -> None:
    """Wait until the port is free on process 0, and until it answers on the others."""
    assert topology.coordinator is not None
    host, port = topology.coordinator.rsplit(":", 1)
    host = host.strip("[]")
    start, told = time.monotonic(), False
    while True:
        try:
            if topology.index == 0:
                socket.getaddrinfo(host, int(port))
                _try_to_listen(int(port))
            else:
                socket.create_connection((host, int(port)), timeout=5).close()
            return
        except OSError as error:
            where = f"coordinator {topology.coordinator}, named by {topology.source}"
            waited = time.monotonic() - start
            if waited >= timeout:
                raise ValueError(
                    f"{where}, cannot be used after {timeout} s ({error}); is process 0 up, "
                    "and are host and port right?"
                ) from error
            if waited >= PATIENCE and not told:
                print(f"kdjax: waiting for {where}: {error}", file=sys.stderr, flush=True)
                told = True
            time.sleep(0.2)


def _try_to_listen(port: int) -> None:
    """OSError if the port is taken, as JAX would listen on it: on all addresses."""
    if socket.has_dualstack_ipv6():
        socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
    else:
        socket.create_server(("", port)).close()


def _check(topology: Topology) -> None:
    """Say who is here; ValueError if that is not who was expected."""
    if jax.process_count() != topology.count:
        raise ValueError(
            f"{topology.source} says {topology.count} processes, but the devices "
            f"({jax.default_backend()}) belong to {jax.process_count()}; is one of them idle?"
        )
    print(
        f"kdjax: process {topology.index}/{topology.count}, coordinator {topology.coordinator} "
        f"({topology.source}), {jax.local_device_count()} of {jax.device_count()} "
        f"{jax.default_backend()} devices",
        file=sys.stderr,
        flush=True,
    )
