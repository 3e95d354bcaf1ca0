"""The type checker that tests run every function of kdjax under."""

from beartype import BeartypeConf, beartype

# An int is a float, as in PEP 484: presets write `epochs=30`.
typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
