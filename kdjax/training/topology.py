"""Who takes part in a job, as config and environment say. Knows no JAX: nothing is tried.

Sources, first match wins: the config; `JAX_COORDINATOR_ADDRESS` with `NNODES` and `NODE_RANK`;
SkyPilot's variables; the counts of Slurm and Open MPI. Kubernetes must set the variables: asking
its API server takes a package and rights that a lone pod does not have.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kdjax.experiment import Processes

PORT = 12321
"""Coordinator port where neither the address nor `JAX_COORDINATOR_PORT` names one."""

ENGINES = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "Slurm": ("SLURM_NTASKS", "SLURM_PROCID"),
}
"""Engines whose count and index stand in the environment."""


@dataclass(frozen=True)
class Topology:
    """Process `index` of `count`, and where they meet."""

    source: str
    """Who said so."""
    coordinator: str | None
    """`host:port` of process 0; None: JAX works it out."""
    count: int
    """Number of processes."""
    index: int
    """Which of them this is, from 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"{self.source}: process {self.index} of {self.count} cannot be; "
                f"the index counts from 0 and stays below the number of processes."
            )


def resolve(processes: Processes, environ: Mapping[str, str]) -> Topology | None:
    """What config and environment say about this job; None if nothing says anything.

    Engines that start a single process say nothing: what runs inside may start more. Raises
    ValueError for a source that is incomplete, and for two that disagree on count or index. Their
    addresses are not compared, since a host has many names.
    """
    sources = (_config(processes), _variables(environ), _skypilot(environ), _engine(environ))
    found = [topology for topology in sources if topology is not None]
    for other in found[1:]:
        check_same(found[0], other)
    return found[0] if found else None


def _config(processes: Processes) -> Topology | None:
    coordinator, count, index = processes.coordinator, processes.count, processes.index
    if coordinator is None and count is None and index is None:
        return None
    if coordinator is None or count is None or index is None:
        values = {"coordinator": coordinator, "count": count, "index": index}
        missing = ", ".join(name for name, value in values.items() if value is None)
        raise ValueError(
            f"runtime.processes: {missing} missing; give coordinator, count and index, or none."
        )
    return Topology("runtime.processes", _address(coordinator, PORT), count, index)


def _variables(environ: Mapping[str, str]) -> Topology | None:
    host = environ.get("JAX_COORDINATOR_ADDRESS")
    if not host:
        return None
    missing = [name for name in ("NNODES", "NODE_RANK") if not environ.get(name)]
    if missing:
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS is {host!r}, but {' and '.join(missing)} is not set; "
            "set all of JAX_COORDINATOR_ADDRESS, NNODES and NODE_RANK, or none."
        )
    address = _address(host, _port(environ))
    count, index = _integer(environ, "NNODES"), _integer(environ, "NODE_RANK")
    return Topology("JAX_COORDINATOR_ADDRESS", address, count, index)


def _skypilot(environ: Mapping[str, str]) -> Topology | None:
    if environ.get("SKYPILOT_NUM_NODES", "1") == "1":
        return None
    count, index = _integer(environ, "SKYPILOT_NUM_NODES"), _integer(environ, "SKYPILOT_NODE_RANK")
    hosts = environ.get("SKYPILOT_NODE_IPS", "").split()
    if len(hosts) != count:
        raise ValueError(
            f"SKYPILOT_NODE_IPS names {len(hosts)} hosts, but SKYPILOT_NUM_NODES is {count}."
        )
    return Topology("SkyPilot", _address(hosts[0], _port(environ)), count, index)


def _engine(environ: Mapping[str, str]) -> Topology | None:
    for name, (count, index) in ENGINES.items():
        # The body of an sbatch script has Slurm's counts too, but runs once, outside any step.
        started = name != "Slurm" or "SLURM_STEP_NODELIST" in environ
        if started and environ.get(count, "1") != "1":
            return Topology(name, None, _integer(environ, count), _integer(environ, index))
    return None


def check_same(a: Topology, b: Topology) -> None:
    """ValueError for two sources that disagree on count or index."""
    if (a.count, a.index) != (b.count, b.index):
        raise ValueError(
            f"{a.source} says process {a.index}/{a.count}, but {b.source} says "
            f"{b.index}/{b.count}; unset one of them."
        )


def _port(environ: Mapping[str, str]) -> int:
    return _integer(environ, "JAX_COORDINATOR_PORT") if "JAX_COORDINATOR_PORT" in environ else PORT


def _integer(environ: Mapping[str, str], name: str) -> int:
    value = environ.get(name)
    if value is None or not re.fullmatch(r"\d+", value):
        raise ValueError(f"{name}: {value!r} is not a whole number.")
    return int(value)


def _address(text: str, port: int) -> str:
    """`host:port`, with a default for the port; an IPv6 host stands in brackets."""
    match = re.fullmatch(r"(\[[^\]]+\]|[^:\s]+)(:\d+)?", text)
    if match is None:
        raise ValueError(f"coordinator {text!r} is no address; write host:port or [IPv6]:port.")
    return f"{match[1]}{match[2] or f':{port}'}"
