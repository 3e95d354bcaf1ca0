"""The page is checked as a reader gets it: its text, its structure, what it asks of a network."""

import base64
import io
import json
import math
import re
import subprocess
import sys
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdjax.report.history import Series, read_history, thin
from kdjax.report.job import Evaluation
from kdjax.report.page import build, read_job
from kdjax.report.words import MISSING, number, overlaps, percent, scaled

ROLES = ("teacher", "baseline", "student")
EVIL = "<script>alert(1)</script>"
SECTIONS = (
    "Results",
    "What was trained",
    "Training curves",
    "Reliability",
    "Confusion",
    "Where teacher and student disagree",
    "Reproduce it",
)


class Page(HTMLParser):
    """A page taken apart: its tags, its text, every address it names."""

    VOID = frozenset({"meta", "img", "br", "hr", "input", "link"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.tags: Counter[str] = Counter()
        self.ids: Counter[str] = Counter()
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.graphics: list[str] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self.tags[tag] += 1
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(named)
        if named.get("role") == "img":
            self.graphics.append(named["aria-label"] or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append("")
        if named.get("id"):
            self.ids[str(named["id"])] += 1
        names = ("src", "href", "xlink:href", "action", "data", "poster", "srcset")
        self.addresses += [value or "" for name, value in attrs if name in names]
        self.addresses += re.findall(r"url\(([^)]*)\)", " ".join(v or "" for v in named.values()))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.addresses += re.findall(r"url\(([^)]*)\)", data)
            assert "@import" not in data
        else:
            self.words.append(data)
            if self.open and re.fullmatch("h[1-6]", self.open[-1]):
                self.headings[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def rows(self) -> dict[str, list[str]]:
        """Cells of the first table of results, by the name of their row; a list for each use."""
        table = self.html[self.html.index('<table class="results') :]
        table = table[: table.index("</table>")]
        found: dict[str, list[str]] = {}
        for row in re.findall(r"<tr.*?>(.*?)</tr>", table, re.S):
            cells = [_bare(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row, re.S)]
            found.setdefault(cells[0], []).extend(cells[1:])
        return found


def _bare(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def wilson(share: float, count: int) -> list[float]:
    z = 1.96
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    spread = z / (1 + z * z / count)
    spread *= math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return [centre - spread, centre + spread]


def evaluation(which: str, top1: float, count: int = 360, **more: Any) -> dict[str, Any]:
    bins = [
        {"count": i * i, "confidence": (i + 0.5) / 15, "accuracy": min(1.0, i / 14)}
        for i in range(15)
    ]
    values = {"checkpoint": which, "step": 340, "epoch": 30.0, "weights": "raw", "split": "test"}
    values |= {"count": count, "top1": top1, "top1_interval": wilson(top1, count)}
    return values | {"top5": 0.998, "nll": 0.0876, "ece": 0.0123, "calibration": bins} | more


def model(role: str, top1: float, best: float, **more: Any) -> dict[str, Any]:
    fidelity = {} if role == "teacher" else {"agreement": 0.9611, "teacher_kl": 0.0431}
    size = 70_000 if role == "teacher" else 5_672
    values = {"directory": role, "type": "SmallCNN", "parameters": size, "bytes": 4 * size}
    values |= {"flops": 20 * size, "latency_ms": {"1": size / 1e5, "64": size / 1e4}}
    values |= {"latest": evaluation("latest", top1, **fidelity)}
    return values | {"best": evaluation("best", best, **fidelity)} | more


def picture(index: int, size: int = 8) -> str:
    pixels = np.random.default_rng(index).integers(0, 255, (size, size), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def analysis(classes: int, count: int = 24) -> dict[str, Any]:
    rng = np.random.default_rng(7)

    def matrix(mistakes: int) -> list[list[int]]:
        counts = np.diag(np.full(classes, 36))
        np.add.at(counts, tuple(rng.integers(0, classes, (2, mistakes))), 1)
        return counts.tolist()

    examples = [
        {
            "index": 11 * i,
            "label": i % classes,
            "teacher": i % classes,
            "student": (i + 3) % classes,
            "teacher_probability": 0.912,
            "student_probability": 0.534,
            "image": picture(i),
        }
        for i in range(count)
    ]
    confusion = {"teacher": matrix(8), "student": matrix(20)}
    return {
        "confusion": confusion,
        "agreement_matrix": matrix(14),
        "disagreements": examples,
    }


def log(role: str, steps: int = 340) -> str:
    rng = np.random.default_rng(len(role))
    lines = []
    for step in range(20, steps + 1, 20):
        epoch = step * 30 / steps
        loss = 2.3 * math.exp(-epoch / 4) + 0.05 + 0.02 * rng.random()
        terms = {"cross_entropy": loss}
        weights = {"cross_entropy": 1.0}
        if role == "student":
            terms["soft_target"] = 3 * loss
            weights = {"cross_entropy": 0.1, "soft_target": min(0.9, 0.1 * epoch)}
        lines.append(
            {"kind": "train", "step": step, "epoch": epoch, "loss": loss, "terms": terms}
            | {"learning_rate": 0.1 * (1 + math.cos(math.pi * epoch / 30)) / 2}
            | {"gradient_norm": 3 * loss, "images_per_second": 9000 + 500 * rng.random()}
            | {"weights": weights}
        )
        if step % 40 == 0:
            values = {"top1": 1 - 0.4 * loss, "nll": loss, "top5": 1.0, "ece": loss / 20}
            lines.append({"kind": "validation", "step": step, "epoch": epoch, "weights": "raw"})
            lines[-1] |= values
    return "".join(json.dumps(line) + "\n" for line in lines)


def run_config(role: str, classes: list[str]) -> dict[str, Any]:
    losses = [{"loss": {"type": "CrossEntropy", "label_smoothing": 0.0}, "weight": 0.1}]
    if role == "student":
        soft = {"type": "SoftTarget", "temperature": 4.0}
        losses.append({"loss": soft, "weight": 0.9, "schedule": None})  # type: ignore[dict-item]
    fit = {"epochs": 30.0, "batch_size": 128, "optimizer": {"type": "SGD", "momentum": 0.9}}
    fit["schedule"] = {"type": "Cosine", "peak": 0.1}
    network = {"type": "SmallCNN", "widths": [16, 32], "hidden": 256}
    run = {"role": role, "seed": 3, "model": network, "losses": losses, "fit": fit}
    return {"kdjax": "0.1.0", "run": run, "data": data(classes)}


def data(classes: list[str]) -> dict[str, Any]:
    sizes = {"train": 1257, "validation": 180, "test": 360}
    return {"name": "digits", "shape": [8, 8, 1], "classes": classes, "sizes": sizes}


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def write_run(directory: Path, role: str, classes: list[str]) -> None:
    write(directory / "config.json", run_config(role, classes))
    (directory / "metrics.jsonl").write_text(log(role))


def write_job(
    directory: Path,
    top1: tuple[float, float, float] = (0.9833, 0.95, 0.9722),
    *,
    name: str = "digits",
    classes: list[str] | None = None,
    roles: tuple[str, ...] = ROLES,
) -> Path:
    """A finished job; `top1` is the accuracy of teacher, baseline and student."""
    classes = classes or [str(i) for i in range(10)]
    scores = dict(zip(ROLES, top1, strict=True))
    seconds = {"teacher": 12.4, "baseline": 8.1, "student": 75.0}
    summary = {
        "name": name,
        "kdjax": "0.1.0",
        "command": "kdjax distill configs/digits.py --workdir runs/digits",
        "versions": {"jax": "0.10.2", "python": "3.11.9"},
        "hardware": "1 x cpu",
        "seconds": {role: seconds[role] for role in roles} | {"total": 95.5},
        "data": data(classes),
        "models": {role: model(role, scores[role], scores[role] + 0.01) for role in roles},
        "export": {"directory": "export", "bytes": 61_234, "max_difference": 3.1e-6},
    }
    write(directory / "summary.json", summary)
    write(directory / "experiment.json", {"name": name, "student": {"losses": []}})
    write(directory / "analysis.json", analysis(len(classes)))
    for role in roles:
        write_run(directory / role, role, classes)
    return directory


def change(path: Path, *keys: str, to: Any) -> None:
    """Set one value inside a JSON file."""
    values = json.loads(path.read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    write(path, values)


def page_of(*directories: Path) -> Page:
    return Page(build([read_job(directory) for directory in directories]))
