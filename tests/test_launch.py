import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from kdjax.experiment import Processes
from kdjax.training.preemption import EXIT_PREEMPTED
from kdjax.training.topology import Topology, resolve

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
BASH = ["local.sh", "slurm.sbatch", "tpu_vm.sh"]
SKY = ["sky_gpu.yaml", "sky_tpu.yaml"]
FILES = ["README.md", "k8s_jobset.yaml", *BASH, *SKY]

OWN = {"PRESET", "WORKDIR"}
"""Variables of the launch files themselves."""
FAKE_DEVICES = {"JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES", "NPROC"}
"""What JAX and XLA read, for fake CPU devices."""


class Recorder(dict):
    """An environment that remembers what it was asked for."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: Any, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def variables_read() -> set[str]:
    """All that `resolve` may look at."""
    address = {"JAX_COORDINATOR_ADDRESS": "a", "NNODES": "2", "NODE_RANK": "0"}
    nodes = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "a b"}
    environ = Recorder(address | nodes)
    resolve(Processes(), environ)
    return environ.asked


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((LAUNCH / name).read_text())


def on_path(directory: Path, name: str, body: str) -> None:
    """A command of that name, written in bash."""
    path = directory / name
    path.write_text(f"#!/usr/bin/env bash\n{body}\n")
    path.chmod(0o755)


def bash(name: str, *arguments: str, path: Path | None = None, **environ: str) -> Any:
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    return subprocess.run(
        ["bash", LAUNCH / name, *arguments],
        cwd=ROOT,
        env=os.environ | {"PATH": search} | environ,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_files():
    assert sorted(path.name for path in LAUNCH.iterdir()) == sorted(FILES)
    readme = (LAUNCH / "README.md").read_text()
    assert [name for name in FILES if name not in readme] == ["README.md"]


@pytest.mark.parametrize("name", FILES)
def test_file_is_short(name: str):
    assert len((LAUNCH / name).read_text().splitlines()) < 40


@pytest.mark.parametrize("name", BASH)
def test_bash_is_clean(name: str):
    subprocess.run(["bash", "-n", LAUNCH / name], check=True)
    shellcheck = Path(sys.executable).parent / "shellcheck"
    done = subprocess.run([shellcheck, LAUNCH / name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", sorted(set(FILES) - {"local.sh", "README.md"}))
def test_preset_exists(name: str):
    presets = re.findall(r"configs/\w+\.py", (LAUNCH / name).read_text())
    assert presets
    assert all((ROOT / preset).is_file() for preset in presets)


# Slurm


def test_slurm_directives():
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    commands = [i for i, line in enumerate(lines) if line and not line.startswith("#")]
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH ")]
    assert max(directives) < min(commands), "sbatch stops reading at the first command"
    options = dict(
        re.fullmatch(r"#SBATCH --([\w-]+)=?(\S*)", lines[i]).groups() for i in directives
    )
    assert "requeue" in options
    assert options["open-mode"] == "append"
    assert re.fullmatch(r"TERM@\d+", options["signal"]), "B: would signal the script alone"
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert "gpus-per-task" not in options


@pytest.mark.parametrize(("code", "requeued"), [(0, False), (1, False), (EXIT_PREEMPTED, True)])
def test_slurm_requeues_what_was_preempted(tmp_path: Path, code: int, requeued: bool):
    on_path(tmp_path, "srun", f'echo "srun $*"; exit {code}')
    on_path(tmp_path, "scontrol", 'echo "scontrol $*"')
    job = {"SLURM_JOB_ID": "7", "PRESET": "p.py", "WORKDIR": "w"}
    done = bash("slurm.sbatch", path=tmp_path, **job)
    assert done.returncode == code
    assert "--kill-on-bad-exit=1" in done.stdout
    assert "kdjax distill p.py --workdir w\n" in done.stdout
    assert ("scontrol requeue 7" in done.stdout) == requeued


SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
NodeName={host} CPUs=2
PartitionName=main Nodes=ALL Default=YES
"""

JOB = """
import sys, time
from pathlib import Path
import jax
from kdjax.experiment import Processes
from kdjax.training.preemption import EXIT_PREEMPTED, Preemption
from kdjax.training.processes import connect

connect(Processes(init_timeout=60, shutdown_timeout=20))
assert jax.process_count() == 2
saved = Path(sys.argv[-1]) / "step"
first = int(saved.read_text()) if saved.exists() else 0
print("begins at", first, flush=True)
with Preemption() as preemption:
    for step in range(first, first + 20 if first else 1000):
        time.sleep(0.02)
        if preemption.poll():
            print("stopped at", step, flush=True)
            if jax.process_index() == 0:
                saved.write_text(str(step))
            sys.exit(EXIT_PREEMPTED)
print("done", flush=True)
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of one node, this machine."""
    with socket.create_server(("", 0)) as a, socket.create_server(("", 0)) as b:
        ports = a.getsockname()[1], b.getsockname()[1]
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    conf = tmp_path / "slurm.conf"
    conf.write_text(SLURM_CONF.format(host=host, ports=ports, home=tmp_path))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    subprocess.run(["slurmctld"], check=True)
    subprocess.run(["slurmd"], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["scancel", "--user=root"], check=True)
        subprocess.run(["scontrol", "shutdown"], check=True)


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slurm
@pytest.mark.skipif(
    shutil.which("slurmctld") is None or shutil.which("slurmd") is None or os.getuid() != 0,
    reason="takes slurmctld, slurmd, and root to start them",
)
def test_slurm_job_is_preempted_and_resumes(slurm: Path, monkeypatch: pytest.MonkeyPatch):
    (slurm / "job.py").write_text(JOB)
    on_path(slurm, "kdjax", f'exec {sys.executable} {slurm}/job.py "$@"')
    monkeypatch.setenv("PATH", f"{slurm}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("WORKDIR", str(slurm))
    log = slurm / "job.log"
    here = ["--nodes=1", "--gpus-per-node=0", "--ntasks-per-node=2", "--cpus-per-task=1"]
    submit = ["sbatch", "--parsable", *here, f"--output={log}", str(LAUNCH / "slurm.sbatch")]
    job = subprocess.run(submit, check=True, capture_output=True, text=True).stdout.strip()

    def state() -> str:
        show = ["scontrol", "show", "job", job]
        text = subprocess.run(show, check=True, capture_output=True, text=True).stdout
        found = re.search(r"JobState=(\w+)", text)
        assert found
        return found[1]

    eventually(lambda: log.exists() and log.read_text().count("begins at 0") == 2)
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    eventually(lambda: state() == "PENDING")
    # Slurm lets a requeued job wait for two minutes; at once the node would refuse it, since its
    # clock, in seconds, does not tell the new start from the one that it was told to end.
    time.sleep(3)
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)
    eventually(lambda: state() == "COMPLETED")
    text = log.read_text()
    first, second = re.findall(r"stopped at (\d+)", text)
    assert first == second
    assert text.count(f"begins at {first}\n") == 2
    assert text.count("done\n") == 2


# Kubernetes


def test_jobset_has_only_known_keys():
    """The custom resource's outer layers; the Job inside is checked against its schema."""
    jobset = load("k8s_jobset.yaml")
    assert jobset.keys() == {"apiVersion", "kind", "metadata", "spec"}
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    spec = jobset["spec"]
    known = {"replicatedJobs", "network", "successPolicy", "failurePolicy", "startupPolicy"}
    assert spec.keys() <= known | {"suspend", "coordinator", "managedBy", "ttlSecondsAfterFinished"}
    assert spec["failurePolicy"].keys() <= {"maxRestarts", "restartStrategy", "rules"}
    for rule in spec["failurePolicy"]["rules"]:
        assert rule.keys() <= {"name", "action", "onJobFailureReasons", "targetReplicatedJobs"}
        assert rule["name"]
        assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
        assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    for job in spec["replicatedJobs"]:
        assert job.keys() <= {"name", "groupName", "template", "replicas", "dependsOn"}
        assert job["template"].keys() <= {"metadata", "spec"}


def replicated_job() -> tuple[str, dict[str, Any]]:
    [job] = load("k8s_jobset.yaml")["spec"]["replicatedJobs"]
    return job["name"], job["template"]["spec"]


def test_jobset_template_is_a_valid_job():
    name, spec = replicated_job()
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
    kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)
    spec["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, kubernetes_validate.latest_version(), strict=True)


def test_jobset_pods_find_each_other_and_restart_when_preempted():
    job, spec = replicated_job()
    name = load("k8s_jobset.yaml")["metadata"]["name"]
    assert spec["completionMode"] == "Indexed"
    assert spec["parallelism"] == spec["completions"]
    assert spec["backoffLimit"] == 0
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "podFailurePolicy asks for it"
    rules = spec["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    assert rules[0]["onExitCodes"] == {"operator": "In", "values": [EXIT_PREEMPTED]}
    [container] = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    environ = {item["name"]: item.get("value", "1") for item in container["env"]}
    assert environ.keys() <= variables_read()
    address = f"{name}-{job}-0-0.{name}:12321"
    expected = Topology("JAX_COORDINATOR_ADDRESS", address, spec["parallelism"], 1)
    assert resolve(Processes(), environ) == expected


# SkyPilot


@pytest.mark.parametrize("name", SKY)
def test_sky_task_recovers_when_preempted(name: str):
    task = load(name)
    known = {"name", "num_nodes", "resources", "envs", "file_mounts", "workdir", "setup", "run"}
    assert task.keys() <= known
    accelerators = {"accelerators", "accelerator_args", "infra", "use_spot"}
    assert task["resources"].keys() <= accelerators | {"job_recovery"}
    recovery = task["resources"]["job_recovery"]
    assert recovery.keys() <= {"strategy", "max_restarts_on_errors", "recover_on_exit_codes"}
    assert recovery["recover_on_exit_codes"] == [EXIT_PREEMPTED]
    assert task["envs"].keys() == OWN
    assert 'kdjax distill "$PRESET" --workdir "$WORKDIR"' in task["run"]
    [(mount, bucket)] = task["file_mounts"].items()
    assert Path(mount) in Path(task["envs"]["WORKDIR"]).parents, "or it goes with the machine"
    assert bucket["mode"] == "MOUNT_CACHED"
    assert set(re.findall(r"unset (\w+)", task["run"])) <= variables_read()


@pytest.mark.parametrize("name", SKY)
@pytest.mark.skipif(find_spec("sky") is None, reason="SkyPilot (650 MB) is not installed")
def test_sky_reads_the_task(name: str):
    script = f"import sky; sky.Task.from_yaml({str(LAUNCH / name)!r})"
    environ = os.environ | {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environ, check=True)


def test_sky_tpu_leaves_the_slice_to_jax():
    """SkyPilot numbers the hosts of a slice too; without this line its numbers would win."""
    environ = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NODE_IPS": "a b"}
    first, *_ = load("sky_tpu.yaml")["run"].splitlines()
    script = f"{first}; env -0"
    done = subprocess.run(["bash", "-c", script], env=environ, capture_output=True, check=True)
    left = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)
    assert resolve(Processes(), environ) is not None
    assert resolve(Processes(), left) is None


# Cloud TPU by hand


def test_tpu_vm(tmp_path: Path):
    on_path(tmp_path, "gcloud", 'echo "$*"; [[ $* != *distill* ]] || exit 75')
    on_path(tmp_path, "sleep", "exit 1")
    done = bash("tpu_vm.sh", "run", path=tmp_path, PRESET="p.py", WORKDIR="w", PREPARE="mounted")
    assert done.returncode == EXIT_PREEMPTED
    assert "mounted" in done.stdout
    assert "kdjax distill 'p.py' --workdir 'w'" in done.stdout
    assert done.stdout.count("--worker=all") == 3
    done = bash("tpu_vm.sh", "delete", path=tmp_path, NAME="mine", ZONE="there")
    expected = "compute tpus queued-resources delete mine --zone=there --force --quiet\n"
    assert done.stdout == expected
    assert bash("tpu_vm.sh").returncode == 2


def test_tpu_vm_waits_for_the_slice(tmp_path: Path):
    gcloud = f"""echo "$*" >> {tmp_path}/calls
    [[ $* != *describe* ]] || case $(grep -c describe {tmp_path}/calls) in
      1) echo WAITING_FOR_RESOURCES ;; 2) echo ACTIVE ;; *) exit 1 ;;
    esac"""
    on_path(tmp_path, "gcloud", gcloud)
    on_path(tmp_path, "sleep", "exit 0")
    assert bash("tpu_vm.sh", "create", path=tmp_path, NAME="mine").returncode == 0
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[3] for call in calls] == ["create", "describe", "describe"]
    assert "--node-id=mine" in calls[0]


# Several processes here


def local(*arguments: str) -> list[str]:
    return ["bash", str(LAUNCH / "local.sh"), *arguments]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ((0, 0), 0),
        ((75, 75), 75),
        ((0, 75), 75),
        ((75, 1), 1),
        ((3, 0), 3),
    ],
)
def test_local_exit_code(codes: tuple[int, int], expected: int):
    """The second process ends after the first."""
    script = (
        f"codes=({codes[0]} {codes[1]}); sleep 0.$((3 * NODE_RANK)); exit ${{codes[NODE_RANK]}}"
    )
    assert bash("local.sh", "2", "--", "bash", "-c", script).returncode == expected


def test_local_output_is_complete_and_prefixed_when_it_ends(tmp_path: Path):
    output = tmp_path / "output"
    with output.open("w") as file:
        subprocess.run(local("2", "--", "seq", "20000"), stdout=file, check=True)
    lines = output.read_text().splitlines()
    for rank in (0, 1):
        mine = [line for line in lines if line.startswith(f"[{rank}] ")]
        assert mine == [f"[{rank}] {i + 1}" for i in range(20000)]


def test_local_kills_the_rest_when_one_fails():
    start = time.monotonic()
    script = "((NODE_RANK != 1)) || exit 4; trap '' TERM; sleep 60"
    assert bash("local.sh", "3", "--", "bash", "-c", script).returncode == 4
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("aborts", ["0", "1"])
def test_local_prefers_a_failure_of_its_own_to_that_of_a_peer(aborts: str, tmp_path: Path):
    """A peer dies of a signal because another has failed; the launcher may notice it first."""
    script = f"""
        ((NODE_RANK == {aborts})) && {{
            until [[ -e {tmp_path}/halted ]]; do sleep 0.05; done; kill -ABRT $$; }}
        launcher=$PPID; (trap "" TERM; sleep 0.6; kill -CONT $launcher) &
        kill -STOP $launcher; touch {tmp_path}/halted; exit 3
    """
    assert bash("local.sh", "2", "--", "bash", "-c", script).returncode == 3


@pytest.mark.parametrize("arguments", [[], ["2"], ["2", "--"], ["x", "--", "true"], ["2", "true"]])
def test_local_usage(arguments: list[str]):
    done = bash("local.sh", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: launch/local.sh")


@pytest.mark.parametrize("devices", [[], ["3"]], ids=["real", "fake"])
def test_local_exports_what_is_read(tmp_path: Path, devices: list[str]):
    names = FAKE_DEVICES if devices else {"JAX_LOCAL_DEVICE_IDS"}
    clean = {key: value for key, value in os.environ.items() if key not in FAKE_DEVICES}
    dump = ["bash", "-c", f"env -0 > {tmp_path}/$NODE_RANK"]
    subprocess.run(local("2", *devices, "--", *dump), env=clean, check=True)
    lines = (tmp_path / "1").read_text().split("\0")
    seen = dict(line.split("=", 1) for line in lines if line)
    added = {name for name in seen if name not in clean} - {"SHLVL", "_", "PWD", "OLDPWD"}
    assert added <= variables_read() | names
    assert names <= added
    topology = resolve(Processes(), seen)
    assert topology is not None
    assert (topology.count, topology.index) == (2, 1)
    if devices:
        assert (seen["JAX_PLATFORMS"], seen["JAX_NUM_CPU_DEVICES"]) == ("cpu", "3")
        assert int(seen["NPROC"]) >= 3


WORK = """
import os, signal, sys, time
import jax, jax.numpy as jnp
from kdjax.experiment import Processes
from kdjax.training.preemption import EXIT_PREEMPTED, Preemption
from kdjax.training.processes import abandon, connect

connect(Processes(init_timeout=60, heartbeat_timeout=20, shutdown_timeout=20))
rank = jax.process_index()
add = jax.pmap(lambda x: jax.lax.psum(x, "all"), axis_name="all")
mine = 1.0 + 2 * rank + jnp.arange(2.0)
print("sum", add(mine).tolist(), flush=True)
with Preemption() as preemption:
    for step in range(1000):
        add(mine).block_until_ready()
        if step == 3:
            print("ready", flush=True)
        if step == 5 and rank == 1 and sys.argv[1] == "signal-one":
            os.kill(os.getpid(), signal.SIGTERM)
        if step == 5 and rank == 1 and sys.argv[1] == "fail":
            abandon(3)
        if preemption.poll():
            print("stopped at", step, flush=True)
            sys.exit(EXIT_PREEMPTED)
        time.sleep(0.01 * rank)
"""


@pytest.fixture
def work(tmp_path: Path) -> list[str]:
    script = tmp_path / "work.py"
    script.write_text(WORK)
    return local("2", "2", "--", sys.executable, str(script))


HEEDING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""A process heeds no interrupt if who started it does not: these tests, in the background."""


@contextlib.contextmanager
def start(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """It is told to stop with the block, if it ought to have ended before and did not."""
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    heeding = [sys.executable, "-c", HEEDING, *command]
    with subprocess.Popen(heeding, env=environ, text=True, cwd=ROOT, **both) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_until_ready(process: subprocess.Popen[str]) -> str:
    """The output up to where both processes are at work."""
    assert process.stdout is not None
    lines = []
    while sum("ready" in line for line in lines) < 2:
        lines.append(process.stdout.readline())
        assert lines[-1], "".join(lines)
    return "".join(lines)


def stops(output: str) -> list[str]:
    return re.findall(r"\[\d\] stopped at (\d+)", output)


def test_two_processes_sum_and_stop_together_when_one_is_signalled(work: list[str]):
    with start([*work, "signal-one"]) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_PREEMPTED, output
    # 1 + 2 on the devices of process 0, 3 + 4 on those of process 1.
    for rank in (0, 1):
        assert f"[{rank}] sum [10.0, 10.0]" in output
        assert f"[{rank}] kdjax: process {rank}/2, coordinator 127.0.0.1:" in output
    assert output.count("(JAX_COORDINATOR_ADDRESS), 2 of 4 cpu devices") == 2
    first, second = stops(output)
    assert first == second
    assert int(first) >= 5


def test_local_tells_all_processes_to_stop(work: list[str]):
    with start([*work, "wait"]) as process:
        output = wait_until_ready(process)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_PREEMPTED, output + rest
    first, second = stops(rest)
    assert first == second


def test_local_forwards_interrupt():
    """A shell's background commands ignore it unless told otherwise."""
    script = "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done"
    with start(local("2", "--", "bash", "-c", script)) as process:
        wait_until_ready(process)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 5
    assert "interrupted" in rest


def test_one_failure_brings_down_the_group(work: list[str]):
    with start([*work, "fail"]) as process:
        wait_until_ready(process)
        begin = time.monotonic()
        process.communicate(timeout=60)
        seconds = time.monotonic() - begin
    assert process.returncode == 3
    assert seconds < 30  # on their own, the others would wait for minutes
