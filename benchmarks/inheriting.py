"""What a student gains by inheriting: accuracy at once and after equal training, over seeds.

    python benchmarks/inheriting.py digits out.json
    python benchmarks/inheriting.py ../fashion-mnist out.json    # a folder with the four IDX files

A student of half the teacher's width is distilled (0.1 cross-entropy + 0.9 soft targets at T = 4)
from fresh weights and from inherited ones. Accuracy is that of the last step on the test images.
"""

import gzip
import json
import os
import platform
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np

from kdjax.data.pipeline import first_batches
from kdjax.data.sources import Arrays, DataInfo, DataSet
from kdjax.evaluation.evaluate import Evaluate
from kdjax.evaluation.load import load
from kdjax.experiment import Data, Derive, Fit, Run, Runtime, TeacherReference
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD
from kdjax.experiment.schedules import Cosine
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import ResNet, SmallCNN
from kdjax.students.derive import derive
from kdjax.students.first_weights import first_weights
from kdjax.training.log import Reporter
from kdjax.training.loop import Job, Teaching, fit
from kdjax.training.parallel import Devices, set_up_compilation_cache
from kdjax.training.run_directory import RunDirectory

SEEDS = 5
WAYS = {
    "fresh": None,
    "l1": Derive(width=0.5),
    "bn_scale": Derive(width=0.5, importance="bn_scale"),
    "taylor": Derive(width=0.5, importance="taylor"),
}
TERMS = (Term(CrossEntropy(), 0.1), Term(SoftTarget(temperature=4.0), 0.9))


def idx(path, header):
    return np.frombuffer(gzip.decompress(path.read_bytes())[header:], np.uint8)


def fashion(folder):
    """20,000 training images, and the test images."""
    read = {}
    for split, name, count in (("train", "train", 20_000), ("test", "t10k", 10_000)):
        images = idx(folder / f"{name}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
        labels = idx(folder / f"{name}-labels-idx1-ubyte.gz", 8).astype(np.int32)
        read[split] = Arrays(images[:count], labels[:count])
    return read


def digits():
    data = DataSet("digits", None, {"train": "train", "test": "test"})
    return {split: data.open(split) for split in ("train", "test")}


def settings(name):
    """Data, teacher, epochs of the teacher, and of its students."""
    if name == "digits":
        network = ResNet(blocks=(1, 1, 1), widths=(16, 16, 32, 64), mean=(0.305,), std=(0.376,))
        return digits(), network, 15, 3
    return fashion(Path(name)), SmallCNN(mean=(0.286,), std=(0.353,)), 4, 1


def main(name, output):
    set_up_compilation_cache()
    data, network, teacher_epochs, student_epochs = settings(name)
    shape = data["train"].images.shape[1:]
    info = DataInfo("x", shape, tuple(map(str, range(10))), {"train": len(data["train"])}, "")
    job = Job(Devices(), Runtime(), Reporter(speaks=False))
    about = {
        "data": Path(name).name,
        "device": f"{len(job.devices.all)} x {job.devices.all[0].device_kind}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{library: version(library) for library in ("jax", "flax", "optax")},
    }
    found = {way: {"start": [], "end": []} for way in WAYS} | {"teacher": {"end": []}}
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)

            def train(role, model, epochs, losses, way=None, teacher=None, root=root, seed=seed):
                schedule = Cosine(peak=0.05, warmup_epochs=epochs / 10)
                fitting = Fit(epochs=epochs, batch_size=128, optimizer=SGD(), schedule=schedule)
                run = Run(
                    role=role,
                    seed=seed,
                    data=Data(),
                    model=model,
                    losses=losses,
                    fit=fitting,
                    teacher=TeacherReference(run="teacher", step=0, digest="") if teacher else None,
                )
                evaluate = Evaluate(model, data["test"], job.devices, 500)
                seen = []

                def start(fresh):
                    variables = fresh
                    if way is not None:
                        batches = partial(first_batches, data["train"], 128, seed, way.recalibrate)
                        variables = first_weights(
                            teacher.model,
                            teacher.variables,
                            model,
                            jax.device_get(fresh),
                            way,
                            shape,
                            batches,
                        )
                    seen.append(evaluate(jax.device_get(variables))["top1"])
                    return variables

                def validate(variables):
                    top1 = evaluate(variables)["top1"]
                    seen.append(top1)
                    return {"top1": top1}

                directory = RunDirectory(root / f"{role}-{way.importance if way else 'fresh'}")
                fit(
                    run,
                    directory,
                    info,
                    data["train"],
                    job,
                    validate=validate,
                    teacher=teacher,
                    start=start,
                )
                return seen, directory.path

            seen, path = train("teacher", network, teacher_epochs, (Term(CrossEntropy()),))
            found["teacher"]["end"].append(seen[-1])
            loaded = load(path, "latest")
            teacher = Teaching(loaded.model, loaded.variables)
            for name_, way in WAYS.items():
                seen, _ = train(
                    "student", derive(network, width=0.5), student_epochs, TERMS, way, teacher
                )
                found[name_]["start"].append(seen[0])
                found[name_]["end"].append(seen[-1])
        print(seed, {k: {m: round(v[-1], 4) for m, v in x.items()} for k, x in found.items()})
        sys.stdout.flush()
        Path(output).write_text(json.dumps({"about": about, "top1": found}, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
