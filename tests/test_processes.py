import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from kdjax.experiment import Processes
from kdjax.training.preemption import EXIT_PREEMPTED, Preemption
from kdjax.training.processes import connect
from kdjax.training.topology import PORT, Topology, resolve

ROOT = Path(__file__).parents[1]

CONFIG = Processes(coordinator="a:1", count=2, index=1)
VARIABLES = {"JAX_COORDINATOR_ADDRESS": "b:2", "NNODES": "2", "NODE_RANK": "1"}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NODE_RANK": "1",
}
SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "no-such-node[1-2].invalid",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}

BY_CONFIG = Topology("runtime.processes", "a:1", 2, 1)
BY_VARIABLES = Topology("JAX_COORDINATOR_ADDRESS", "b:2", 2, 1)
BY_SKYPILOT = Topology("SkyPilot", f"10.0.0.1:{PORT}", 2, 1)
BY_SLURM = Topology("Slurm", None, 2, 1)


def without(values: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize(
    ("processes", "environ", "expected"),
    [
        (Processes(), {}, None),
        (CONFIG, {}, BY_CONFIG),
        (Processes(), VARIABLES, BY_VARIABLES),
        (Processes(), SKYPILOT, BY_SKYPILOT),
        (Processes(), SLURM, BY_SLURM),
        (Processes(), OPEN_MPI, Topology("Open MPI", None, 2, 1)),
        # The first match wins.
        (CONFIG, VARIABLES | SKYPILOT | SLURM, BY_CONFIG),
        (Processes(), SLURM | SKYPILOT | VARIABLES, BY_VARIABLES),
        (Processes(), SLURM | SKYPILOT, BY_SKYPILOT),
        # mpirun inside a Slurm step: Slurm counts the daemons.
        (Processes(), SLURM | OPEN_MPI | {"SLURM_NTASKS": "9"}, Topology("Open MPI", None, 2, 1)),
        # Engines that started one process say nothing; a user who did says so.
        (Processes(), SKYPILOT | {"SKYPILOT_NUM_NODES": "1"}, None),
        (Processes(), SLURM | {"SLURM_NTASKS": "1"}, None),
        (Processes(), SLURM | {"SLURM_NTASKS": "1"} | VARIABLES, BY_VARIABLES),
        (replace(CONFIG, count=1, index=0), {}, replace(BY_CONFIG, count=1, index=0)),
        # The body of an sbatch script is no task.
        (Processes(), without(SLURM, "SLURM_STEP_NODELIST"), None),
        # Other launchers use these names for themselves.
        (Processes(), without(VARIABLES, "JAX_COORDINATOR_ADDRESS"), None),
    ],
)
def test_source(processes: Processes, environ: dict[str, str], expected: Topology | None):
    assert resolve(processes, environ) == expected


@pytest.mark.parametrize(
    ("environ", "coordinator"),
    [
        (VARIABLES | {"JAX_COORDINATOR_ADDRESS": "b"}, f"b:{PORT}"),
        (VARIABLES | {"JAX_COORDINATOR_ADDRESS": "b", "JAX_COORDINATOR_PORT": "9"}, "b:9"),
        (VARIABLES | {"JAX_COORDINATOR_PORT": "9"}, "b:2"),
        (VARIABLES | {"JAX_COORDINATOR_ADDRESS": "[::1]"}, f"[::1]:{PORT}"),
        (VARIABLES | {"JAX_COORDINATOR_ADDRESS": "[::1]:9"}, "[::1]:9"),
        (SKYPILOT | {"JAX_COORDINATOR_PORT": "9"}, "10.0.0.1:9"),
    ],
)
def test_port(environ: dict[str, str], coordinator: str):
    topology = resolve(Processes(), environ)
    assert topology is not None
    assert topology.coordinator == coordinator


@pytest.mark.parametrize(
    ("processes", "environ", "message"),
    [
        (Processes(count=2, index=0), {}, "runtime.processes: coordinator missing"),
        (Processes(coordinator="a:1", count=2), {}, "runtime.processes: index missing"),
        (Processes(coordinator="a:1"), {}, "runtime.processes: count, index missing"),
        (Processes(coordinator="a:1", count=2, index=2), {}, "process 2 of 2 cannot be"),
        (Processes(coordinator="::1:4", count=2, index=1), {}, "'::1:4' is no address"),
        (Processes(), without(VARIABLES, "NNODES"), "NNODES is not set"),
        (Processes(), without(VARIABLES, "NODE_RANK"), "NODE_RANK is not set"),
        (Processes(), VARIABLES | {"NNODES": "two"}, "NNODES: 'two' is not a whole number"),
        (Processes(), VARIABLES | {"NODE_RANK": "2"}, "process 2 of 2 cannot be"),
        (Processes(), SKYPILOT | {"SKYPILOT_NODE_IPS": "10.0.0.1"}, "names 1 hosts"),
        (Processes(), without(SKYPILOT, "SKYPILOT_NODE_RANK"), "SKYPILOT_NODE_RANK: None"),
        (CONFIG, VARIABLES | {"NNODES": "3"}, "runtime.processes.*JAX_COORDINATOR_ADDRESS"),
        (CONFIG, SKYPILOT | {"SKYPILOT_NODE_RANK": "0"}, "runtime.processes.*SkyPilot"),
        (Processes(), VARIABLES | SLURM | {"SLURM_NTASKS": "4"}, "JAX_COORDINATOR_ADDRESS.*Slurm"),
        (Processes(), SKYPILOT | OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "0"}, "SkyPilot.*Open MPI"),
    ],
)
def test_refused(processes: Processes, environ: dict[str, str], message: str):
    with pytest.raises(ValueError, match=message) as refusal:
        resolve(processes, environ)
    assert str(refusal.value).count("\n") <= 1


def test_alone_there_is_nothing_to_connect():
    connect(Processes(), {})
    connect(Processes(coordinator="no-such-host.invalid:1", count=1, index=0), {})
    assert not jax.distributed.is_initialized()


def test_unknown_host_names_address_and_source():
    processes = Processes(coordinator="no-such-host.invalid:1", count=2, index=0, init_timeout=0)
    with pytest.raises(ValueError, match=r"no-such-host\.invalid:1, named by runtime\.processes"):
        connect(processes, {})


def test_closed_port_names_address_and_source():
    with socket.socket() as closed:  # bound, so that nobody else takes it, but not listening
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(ValueError, match=f"{address}, named by JAX_COORDINATOR_ADDRESS"):
            connect(Processes(init_timeout=0), VARIABLES | {"JAX_COORDINATOR_ADDRESS": address})


def test_slurm_address_comes_from_jax(monkeypatch: pytest.MonkeyPatch):
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="no-such-node1:61447, named by Slurm"):
        connect(Processes(init_timeout=0))


def test_engine_that_jax_does_not_recognise(monkeypatch: pytest.MonkeyPatch):
    for name, value in OPEN_MPI.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="Open MPI started process 1/2, which JAX"):
        connect(Processes())


@pytest.mark.parametrize(
    ("variables", "detection"), [(VARIABLES, "deactivate"), ({}, None)], ids=["variables", "slurm"]
)
def test_jax_picks_devices_only_where_it_started_the_tasks(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], detection: str | None
):
    """One task a node must keep all GPUs of the node, even inside a Slurm step."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    here = {"SLURM_STEP_NODELIST": "localhost", "SLURM_PROCID": "0", "JAX_COORDINATOR_PORT": port}
    if variables:
        here |= {"JAX_COORDINATOR_ADDRESS": "127.0.0.1", "NODE_RANK": "0"}
    for name, value in (SLURM | variables | here).items():
        monkeypatch.setenv(name, str(value))
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *a, **k: calls.append((a, k)))
    processes = Processes(init_timeout=11, heartbeat_timeout=12, shutdown_timeout=13)
    with pytest.raises(ValueError, match=r"says 2 processes, but .* belong to 1"):
        connect(processes)
    [(positional, keywords)] = calls
    assert positional == (f"{'127.0.0.1' if variables else 'localhost'}:{port}", 2, 0)
    assert keywords == {
        "cluster_detection_method": detection,
        "initialization_timeout": 11,
        "heartbeat_timeout_seconds": 12,
        "shutdown_timeout_seconds": 13,
    }


def test_taken_port_names_address_and_source():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"localhost:{taken.getsockname()[1]}"
        processes = Processes(coordinator=address, count=2, index=0, init_timeout=0)
        with pytest.raises(ValueError, match=f"{address}, named by .*Address already in use"):
            connect(processes, {})


def test_import_starts_no_backend():
    script = """if True:
        import sys
        import kdjax.training.processes, kdjax.training.preemption
        from jax._src import xla_bridge
        sys.exit(xla_bridge.backends_are_initialized())
        """
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


SINGLE = """if True:
    import signal, sys, time
    from kdjax.training.preemption import EXIT_PREEMPTED, Preemption
    with Preemption() as preemption:
        assert not preemption.poll()
        print("ready", flush=True)
        while not preemption.poll():
            time.sleep(0.01)
        assert preemption.poll()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, print)
    with Preemption():
        assert signal.getsignal(signal.SIGTERM) is not print
    assert signal.getsignal(signal.SIGTERM) is print
    sys.exit(EXIT_PREEMPTED)
    """


def test_single_process_notices_sigterm():
    command = [sys.executable, "-c", SINGLE]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(10) == EXIT_PREEMPTED == 75


def test_outside_the_main_thread_handlers_stay():
    before = signal.getsignal(signal.SIGTERM)
    polled = []

    def use() -> None:
        with Preemption() as preemption:
            polled.append(preemption.poll())
            polled.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert polled == [False, True]
