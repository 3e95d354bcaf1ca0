"""The page is checked as a reader gets it: its text, its structure, what it asks of a network."""

import base64
import io
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdjax.cli import main
from kdjax.report.history import Series, read_history, thin
from kdjax.report.job import Evaluation
from kdjax.report.page import build, read_job
from kdjax.report.words import (
    comparison,
    duration,
    headline,
    number,
    overlaps,
    percent,
    scaled,
    signed_points,
)

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


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job that no test changes."""
    return write_job(tmp_path_factory.mktemp("reports") / "digits")


@pytest.fixture(scope="module")
def page(finished: Path) -> Page:
    return page_of(finished)


def test_a_finished_job_shows_every_section(page: Page) -> None:
    found = [heading for heading in page.headings if heading in SECTIONS]
    assert found == list(SECTIONS)
    assert page.tags["h1"] == 1
    assert page.html.startswith("<!DOCTYPE html>")
    for title in ("Top-1 accuracy", "Cross entropy", "Soft target", "Learning rate"):
        assert title in page.headings
    assert "kdjax distill configs/digits.py --workdir runs/digits" in page.text
    assert (
        "0.1 × CrossEntropy(label_smoothing=0.0) + 0.9 × SoftTarget(temperature=4.0)" in page.text
    )


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("last", "Published: A. Paper, 2020; the last epoch, as ours beside it."),
        ("best", "Published: A. Paper, 2020; the best epoch on the test set. Ours beside it is"),
    ],
)
def test_published_numbers_stand_below_ours_with_their_rule_and_source(
    tmp_path: Path, rule: str, says: str
) -> None:
    job = write_job(tmp_path / "job")
    theirs = {"teacher": 75.61, "baseline": None, "student": 74.9}
    theirs |= {"rule": rule, "source": "A. Paper, 2020"}
    change(job / "summary.json", "published", to=theirs)
    page = page_of(job)
    assert page.rows["Top-1 accuracy, published"] == ["75.61 %", "–", "74.90 %"]
    names = list(page.rows)
    assert names.index("Top-1 accuracy, published") == names.index("Top-1 accuracy") + 1
    assert says in page.text


def test_metrics_that_were_chosen_have_rows_and_curves(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    for which, value in (("latest", 0.875), ("best", 0.9)):
        to = {"balanced_accuracy": value}
        change(job / "summary.json", "models", "student", which, "metrics", to=to)
    line = {"kind": "validation", "step": 40, "epoch": 3.5, "weights": "raw"}
    logged = {**line, "metrics": {"balanced_accuracy": 0.625}}
    (job / "student" / "metrics.jsonl").write_text(log("student") + json.dumps(logged) + "\n")
    page = page_of(job)
    assert page.rows["Balanced accuracy"] == ["–", "–", "0.875", "–", "–", "0.900"]
    assert "Balanced accuracy" in page.headings
    assert (
        "Balanced accuracy over the epochs. At the end: distilled student 0.625." in page.graphics
    )


def test_nothing_is_said_where_nothing_was_published(page: Page) -> None:
    assert "published" not in page.text.lower()


def test_headline_says_what_is_kept(page: Page) -> None:
    kept, size = 0.9722 / 0.9833, 5_672 / 70_000
    expected = f"The student keeps {kept:.1%} of the teacher's accuracy with {size:.1%} of its"
    assert page.headings[0].replace("\xa0", "") == f"{expected} parameters."


@pytest.mark.parametrize(
    ("top1", "count", "expected"),
    [
        ((0.98, 0.90, 0.97), 3600, "gained 7.00 points over the same student trained alone; the"),
        ((0.98, 0.96, 0.97), 360, "gained 1.0 point over the same student trained alone, but the"),
        ((0.98, 0.97, 0.96), 360, "did not help: the same student trained alone is 1.0 point bett"),
        ((0.98, 0.97, 0.90), 3600, "did harm: the same student trained alone is 7.00 points bette"),
        ((0.98, 0.97, 0.97), 360, "made no difference"),
    ],
)
def test_the_comparison_is_honest(
    tmp_path: Path, top1: tuple[float, float, float], count: int, expected: str
) -> None:
    job = write_job(tmp_path / "job", top1)
    for role, share in zip(ROLES, top1, strict=True):
        new = evaluation("latest", share, count)
        change(job / "summary.json", "models", role, "latest", to=new)
    text = comparison(read_job(job)).replace("\xa0", " ")
    assert f"Distillation {expected}" in text
    low, high = (sorted([wilson(top1[i], count) for i in (1, 2)])[k][1 - k] for k in (0, 1))
    if top1[1] != top1[2]:
        assert ("intervals do not overlap" in text) == (low < high)
        assert ("it may be chance" in text) == (low >= high)


@pytest.mark.parametrize(
    ("teacher", "student", "word"),
    [(0.98, 0.99, "matches"), (0.98, 0.98, "matches"), (0.90, 0.98, "exceeds")],
)
def test_a_student_as_good_as_its_teacher(
    tmp_path: Path, teacher: float, student: float, word: str
) -> None:
    job = read_job(write_job(tmp_path / "job", (teacher, 0.8, student)))
    assert headline(job).startswith(f"The student {word} its teacher (")


def test_numbers_are_those_given(page: Page) -> None:
    text = page.text.replace("\xa0", " ")
    rows = {name: [c.replace("\xa0", " ") for c in cells] for name, cells in page.rows.items()}
    low, high = wilson(0.9722, 360)
    assert rows["Top-1 accuracy"][2] == f"97.2 % {100 * low:.1f}–{100 * high:.1f} %"
    assert rows["Top-5 accuracy"][0] == "99.8 %"
    assert rows["Negative log-likelihood, nats"][0] == "0.0876"
    assert rows["Calibration error (ECE)"][0] == "1.2 %"
    assert rows["Same answer as the teacher"][:3] == ["–", "96.1 %", "96.1 %"]
    assert rows["KL from the teacher, nats"][2] == "0.0431"
    assert rows["Parameters"] == ["70,000", *["5,672 8.1 % of teacher"] * 2]
    assert rows["FLOPs per image"][:2] == ["1.40 M", "113 k 8.1 % of teacher"]
    assert rows["Weights, float32"][0] == "280 kB"
    assert rows["Latency, batch of 64"] == ["7.00 ms", *["0.567 ms 8.1 % of teacher"] * 2]
    assert rows["Training time"] == ["12 s", "8.1 s", "1 min 15 s"]
    assert rows["Exported files"] == ["–", "–", "61.2 kB"]
    assert rows["Epoch"] == ["30 step 340"] * 6
    assert "12.3× fewer parameters" in text
    assert "3.10e-6" in text or "3.10e-06" in text
    assert "1,257 train · 180 validation · 360 test" in text


def test_last_comes_before_best(page: Page) -> None:
    last, best = page.text.index("Last checkpoint"), page.text.index("Best checkpoint")
    assert last < page.text.index("97.2", last) < best < page.text.index("98.2", best)
    first, second = page.rows["Top-1 accuracy"][2], page.rows["Top-1 accuracy"][5]
    assert (first[:4], second[:4]) == ("97.2", "98.2")


def test_confusion_holds_every_count(finished: Path, page: Page) -> None:
    given = json.loads((finished / "analysis.json").read_text())
    tables = re.findall(r'<table class="confusion">(.*?)</table>', page.html, re.S)
    expected = [*given["confusion"].values(), given["agreement_matrix"]]
    for table, matrix in zip(tables, expected, strict=True):
        cells = re.findall(r"<td class.*?>(\d+)</td>", table)
        assert [int(cell) for cell in cells] == [count for row in matrix for count in row]


def test_examples_say_who_is_right(page: Page) -> None:
    pictures = [image for image in page.images if (image["alt"] or "").startswith("Test image")]
    assert len(pictures) == 24
    assert pictures[3]["alt"] == (
        "Test image 33 of class 3; the teacher answers 3; the student answers 6."
    )
    encoded = (pictures[3]["src"] or "").removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as shown:
        expected = Image.open(io.BytesIO(base64.b64decode(picture(3))))
        assert np.array_equal(np.asarray(shown), np.asarray(expected))
    figcaption = page.html[page.html.index("Test image 33") :][:600]
    assert re.search(r'class="yes".*?✓.*?teacher: 3', figcaption, re.S)
    assert re.search(r'class="no".*?✗.*?student: 6', figcaption, re.S)


def test_nothing_is_fetched_and_nothing_runs(page: Page) -> None:
    assert page.addresses
    assert [a for a in page.addresses if not a.startswith(("data:image/png;base64,", "#"))] == []
    assert "://" not in page.html
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert not re.search(r"<[^>]*\son\w+=", page.html)
    assert "default-src 'none'" in page.html


def test_drawings_keep_apart_and_follow_the_theme(finished: Path) -> None:
    page = page_of(finished, finished)
    assert not [name for name, count in page.ids.items() if count > 1]
    targets = {a[1:] for a in page.addresses if a.startswith("#")}
    assert targets
    assert targets <= page.ids.keys()
    drawings = re.findall(r"<svg.*?</svg>", page.html, re.S)
    assert len(drawings) > 20
    assert set(re.findall(r"#[0-9a-f]{6}\b", " ".join(drawings))) == set()
    assert all(f"var(--{role})" in page.html for role in (*ROLES, "ink", "muted", "grid"))
    css = page.html[: page.html.index("</style>")]
    assert {f"var(--{name})" for name in re.findall(r"--([\w-]+):", css)} >= set(
        re.findall(r"var\(--\w+\)", page.html)
    ) - {"var(--root)"}


def test_every_picture_has_words(page: Page) -> None:
    assert all(image["alt"] for image in page.images)
    assert len(page.graphics) == 1 + 3 + 4 + 3 + 3
    assert all(len(label) > 20 for label in page.graphics)
    assert page.tags["th"] > 30
    assert not re.search(r"<th(?![^>]*scope=)[^>]*>", page.html.replace("<thead", "<head"))


def test_everything_from_outside_is_escaped(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", name=EVIL, classes=[EVIL, *"123456789"])
    for key in ("command", "hardware", "kdjax"):
        change(job / "summary.json", key, to=EVIL)
    change(job / "summary.json", "data", "name", to=EVIL)
    change(job / "summary.json", "versions", to={EVIL: EVIL})
    change(job / "summary.json", "models", "student", "type", to=EVIL)
    change(job / "summary.json", "models", "student", "latency_ms", to={EVIL: 1.0})
    change(job / "summary.json", "models", "student", "latest", "split", to=EVIL)
    change(job / "summary.json", "export", "directory", to=EVIL)
    change(job / "experiment.json", "name", to=f"</code></pre>{EVIL}")
    change(job / "student/config.json", "run", "model", to={"type": EVIL, EVIL: EVIL})
    change(job / "analysis.json", "checkpoint", to=EVIL)
    with (job / "student/metrics.jsonl").open("a") as file:
        line = {"kind": "train", "step": 999, "epoch": 31, "loss": 1.0, "terms": {EVIL: 1.0}}
        file.write(json.dumps(line) + "\n")
    for page in (page_of(job), page_of(job, job)):
        assert "<script" not in page.html.lower()
        assert page.tags["script"] == 0
        assert page.text.lower().count(EVIL) >= 12


def test_warnings_stand_near_the_top_each_once(tmp_path: Path, page: Page) -> None:
    assert "Warnings" not in page.headings
    job = write_job(tmp_path / "job")
    for role, text in (("teacher", "t"), ("student", "the teacher is weak"), ("student", EVIL)):
        line = {"kind": "warning", "step": 0, "epoch": 0.0, "text": text}
        with (job / role / "metrics.jsonl").open("a") as file:
            file.write(2 * f"{json.dumps(line)}\n")
    page = page_of(job)
    assert page.headings.index("Warnings") == 1
    start = page.text.index("Warnings")
    assert page.text[start:].startswith(
        f"Warnings Teacher t Distilled student the teacher is weak Distilled student {EVIL}"
    )
    assert page.text.count("the teacher is weak") == 1
    assert start < page.text.index("fewer parameters")
    assert page.tags["script"] == 0


def pulled(step: int, **norms: float) -> str:
    line = {"kind": "gradients", "step": step, "epoch": step * 30 / 340, "student": norms}
    return json.dumps(line | {"adapters": dict.fromkeys(norms, 0.0)}) + "\n"


def test_how_hard_each_term_pulls_is_drawn_with_its_weight(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    with (job / "student/metrics.jsonl").open("a") as file:
        file.write(pulled(20, cross_entropy=5.0, soft_target=7.0))
        file.write(pulled(340, cross_entropy=3.0, soft_target=2.0, unknown=1.0))
        file.write(pulled(341, cross_entropy=9.0))
    pulls = read_history(job / "student/metrics.jsonl").pulls
    assert pulls.keys() == {"cross_entropy", "soft_target"}
    np.testing.assert_allclose(pulls["cross_entropy"].value, [0.5, 0.3])
    np.testing.assert_allclose(pulls["soft_target"].value, [7 * 3 / 17, 1.8], rtol=1e-3)
    page = page_of(job, job)
    assert page.headings.count("How hard each term pulls at the distilled student") == 2
    assert "at the end: 1: cross entropy 0.300, 2: soft target 1.80." in page.text
    assert not [name for name, count in page.ids.items() if count > 1]


def test_the_names_of_terms_that_pull_are_escaped(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    with (job / "student/metrics.jsonl").open("a") as file:
        line = {"kind": "train", "step": 500, "epoch": 44, "weights": {EVIL: 1.0, "b": math.nan}}
        file.write(json.dumps(line) + "\n")
        file.write(pulled(500, **{EVIL: 1.0, "b": 1.0}))
    assert "How hard each term" not in page_of(job).text  # of one there is nothing to compare
    with (job / "student/metrics.jsonl").open("a") as file:
        line["weights"]["b"] = 0.0
        file.write(json.dumps(line) + "\n")
    page = page_of(job)
    assert f"1: {EVIL} 1.00, 2: b 0." in page.text
    assert page.tags["script"] == 0


def test_missing_parts_are_not_shown(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job", roles=("teacher", "student"))
    change(job / "summary.json", "export", to=None)
    change(job / "summary.json", "command", to="")
    (job / "analysis.json").unlink()
    page = page_of(job)
    assert "The student keeps" in page.headings[0]
    for absent in ("Student alone", "Exported", "Distillation gained", "student alone"):
        assert absent not in page.text
    assert {"Confusion", "Where teacher and student disagree"}.isdisjoint(page.headings)
    assert "command" not in re.findall(r'<pre class="(\w+)"', page.html)


def test_a_job_without_a_teacher(tmp_path: Path) -> None:
    page = page_of(write_job(tmp_path / "job", roles=("student",)))
    assert page.headings[0].replace("\xa0", " ") == (
        "SmallCNN classifies 97.2 % of 360 test images correctly."
    )
    assert "of teacher" not in page.text
    assert "fewer parameters" not in page.text


def test_a_single_run(finished: Path) -> None:
    page = page_of(finished / "teacher")
    lines = (finished / "teacher/metrics.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    top1 = [value["top1"] for value in values if value["kind"] == "validation"][-1]
    assert f"{top1:.1%}" in page.headings[0].replace("\xa0", "")
    assert {"What was trained", "Training curves"} <= set(page.headings)
    assert {"Results", "Reliability", "Confusion"}.isdisjoint(page.headings)


def test_a_teacher_that_was_tested_but_not_distilled(tmp_path: Path) -> None:
    write_run(tmp_path / "teacher", "teacher", [str(i) for i in range(10)])
    write(tmp_path / "teacher/test.json", model("teacher", 0.9611, 0.9722))
    write(tmp_path / "experiment.json", {"name": "teacher only"})
    for directory in (tmp_path, tmp_path / "teacher"):
        page = page_of(directory)
        assert "SmallCNN classifies 96.1" in page.headings[0]
        assert "Results" in page.headings


def test_a_job_that_was_stopped(tmp_path: Path) -> None:
    write_run(tmp_path / "teacher", "teacher", ["a", "b"])
    write(tmp_path / "experiment.json", {"name": "stopped"})
    page = page_of(tmp_path)
    assert "not tested yet" in page.headings[0]
    assert "stopped" in page.text


def test_several_jobs_are_compared_first(tmp_path: Path) -> None:
    names = ("first", "second", "third")
    scores = ((0.98, 0.95, 0.97), (0.97, 0.96, 0.94), (0.76, 0.70, 0.73))
    jobs = [write_job(tmp_path / n, s, name=n) for n, s in zip(names, scores, strict=True)]
    page = page_of(*jobs)
    rows = {name: [c.replace("\xa0", " ") for c in cells] for name, cells in page.rows.items()}
    assert [name for name in rows if name != "Job"] == ["1. first", "2. second", "3. third"]
    assert rows["1. first"][0] == "digits"
    assert [rows[f"{i}. {n}"][4] for i, n in enumerate(names, 1)] == [
        "+2.0 points",
        "−2.0 points",
        "+3.0 points",
    ]
    assert rows["3. third"][1].startswith("76.0 %")
    assert page.html.index("All jobs") < page.html.index('<article id="job-1"')
    assert [page.headings.count(section) for section in SECTIONS] == [3] * len(SECTIONS)
    assert "Accuracy and size" in page.headings
    assert "Distillation did not help" in page.text


def test_the_command_reads_every_job(tmp_path: Path) -> None:
    jobs = [str(write_job(tmp_path / name, name=name)) for name in ("first", "second")]
    output = tmp_path / "new" / "page.html"
    assert main(["report", *jobs, "--output", str(output)]) == 0
    assert output.read_text() == build([read_job(Path(job)) for job in jobs])


def test_jobs_on_different_data_share_no_chart(finished: Path, tmp_path: Path) -> None:
    other = write_job(tmp_path / "other")
    change(other / "summary.json", "data", "name", to="cifar10")
    page = page_of(finished, other)
    assert "Accuracy and size" not in page.headings
    assert "different data" in page.text


def test_no_job_is_refused() -> None:
    with pytest.raises(ValueError, match="name at least one"):
        build([])


def test_an_empty_log(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    for role, content in zip(ROLES, ("", "\n[]\nnot json\n", '{"kind": "train", "st'), strict=True):
        (job / role / "metrics.jsonl").write_text(content)
    page = page_of(job)
    assert "Training curves" not in page.headings
    assert "Results" in page.headings


def test_a_resumed_log_counts_the_later_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        {"kind": "train", "step": step, "epoch": step / 10, "loss": loss}
        for step, loss in ((10, 3.0), (20, 2.0), (30, 9.0), (20, 1.5), (30, 1.0))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tr')
    series = read_history(path).train["loss"]
    assert series.epoch.tolist() == [1.0, 2.0, 3.0]
    assert series.value.tolist() == [3.0, 1.5, 1.0]


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    log_path = job / "student/metrics.jsonl"
    line = {"kind": "train", "step": 9999, "epoch": 31, "loss": math.nan, "learning_rate": math.inf}
    with log_path.open("a") as file:
        file.write(json.dumps(line | {"images_per_second": None}) + "\n")
    broken = evaluation("latest", math.nan, nll=math.inf, ece=None, top5=math.nan)
    broken["top1_interval"] = [math.nan, math.nan]
    broken["calibration"][3] = {"count": 2, "confidence": math.nan, "accuracy": math.nan}
    change(job / "summary.json", "models", "student", "latest", to=broken)
    change(job / "summary.json", "models", "student", "latency_ms", "1", to=None)
    change(job / "summary.json", "seconds", "student", to=None)
    page = page_of(job)
    assert page.text.count("1 logged values are not finite.") == 2
    assert page.rows["Top-1 accuracy"][2] == "–"
    assert not re.search(r"\b(nan|inf)\b", page.text.lower())


def test_a_long_run_is_thinned(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    short = len(build([read_job(job)]))
    steps = np.arange(1, 10_001)
    rows = zip(steps.tolist(), (1 / steps).tolist(), strict=True)
    text = "".join(
        f'{{"kind": "train", "step": {s}, "epoch": {s / 100}, "loss": {v}}}\n' for s, v in rows
    )
    for role in ROLES:
        (job / role / "metrics.jsonl").write_text(text)
    assert len(build([read_job(job)])) < short + 60_000


def test_thinning_keeps_means_and_extremes() -> None:
    value = np.random.default_rng(0).normal(size=10_000)
    value[[77, 5000]] = 50.0, np.nan
    curve = thin(Series(np.arange(10_000) / 100, value), 100)
    assert len(curve.mean) == 100
    np.testing.assert_allclose(curve.mean[3], value[300:400].mean())
    np.testing.assert_allclose(curve.mean[50], np.nanmean(value[5000:5100]))
    assert np.nanmax(curve.high) == 50.0
    assert np.nanmin(curve.low) == np.nanmin(value)
    assert np.all(np.diff(curve.epoch) > 0)
    whole = thin(Series(np.arange(5.0), value[:5]), 100)
    np.testing.assert_array_equal(whole.mean, value[:5])
    assert thin(Series(np.empty(0), np.empty(0))).mean.size == 0


@pytest.mark.parametrize("classes", [13, 100, 1000])
def test_many_classes_become_an_image(tmp_path: Path, classes: int) -> None:
    job = write_job(tmp_path / "job", classes=[f"class {i}" for i in range(classes)])
    counts = np.diag(np.full(classes, 50))
    counts[7, 3], counts[1, 2] = 41, 23
    given = {"student": counts.tolist(), "teacher": np.diag(np.full(classes, 50)).tolist()}
    change(job / "analysis.json", "confusion", to=given)
    page = page_of(job)
    assert "confusion" not in re.findall(r'<table class="(\w+)"', page.html)
    images = [image for image in page.images if image.get("class") == "matrix"]
    assert len(images) == 3
    encoded = (images[1]["src"] or "").removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert max(image.size) <= 250
        opacity = np.asarray(image)[..., 3]
        assert opacity[0, 0] == 255
        assert (opacity > 0).sum() > len(opacity)
    pairs = page.html[page.html.index("results pairs") :]
    found = [_bare(row) for row in re.findall(r"<tr>(.*?)</tr>", pairs, re.S)[1:3]]
    assert found == ["class 7 class 3 0 41", "class 1 class 2 0 23"]
    assert len(page.html) < 1_000_000


def test_large_images_are_shrunk_and_broken_ones_left_out(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    given = json.loads((job / "analysis.json").read_text())
    for example, image in zip(
        given["disagreements"],
        (picture(0, 224), "no base64!", "AAAA", picture(1)[:60], ""),
        strict=False,
    ):
        example["image"] = image
    write(job / "analysis.json", given)
    page = page_of(job)
    shown = [i for i in page.images if (i["alt"] or "").startswith("Test image")]
    assert len(shown) == 20
    with Image.open(io.BytesIO(base64.b64decode((shown[0]["src"] or "").split(",")[1]))) as image:
        assert image.size == (96, 96)
    assert [i.get("class") for i in shown[:2]] == [None, "pixels"]


def test_a_page_of_photographs_stays_small(tmp_path: Path) -> None:
    jobs = []
    for name in ("a", "b", "c"):
        job = write_job(tmp_path / name)
        given = json.loads((job / "analysis.json").read_text())
        for i, example in enumerate(given["disagreements"]):
            pixels = np.random.default_rng(i).integers(0, 255, (224, 224, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            example["image"] = base64.b64encode(buffer.getvalue()).decode()
        write(job / "analysis.json", given)
        jobs.append(job)
    assert 500_000 < len(page_of(*jobs).html) < 2_000_000


def test_what_is_no_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither a job nor a run"):
        read_job(tmp_path / "nothing")
    (tmp_path / "summary.json").write_text('{"name": "di')
    with pytest.raises(ValueError, match=r"summary\.json is not readable JSON"):
        read_job(tmp_path)
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(ValueError, match=r"summary\.json is damaged"):
        read_job(tmp_path)
    write(tmp_path / "summary.json", {"models": {"teacher": {"parameters": "many"}}})
    with pytest.raises(ValueError, match=r"summary\.json: .*models.*parameters"):
        read_job(tmp_path)


def test_a_newer_job_stays_readable(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    change(job / "summary.json", "models", "student", "energy", to=3)
    change(job / "summary.json", "processes", to=8)
    assert "Results" in page_of(job).headings


def test_the_same_job_gives_the_same_page(finished: Path, page: Page) -> None:
    assert build([read_job(finished)]) == page.html


def test_pyplot_and_its_state_stay_out(finished: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    build([read_job(finished)])
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.9722, 360), "97.2 %"),
        (percent(0.97224, 10_000), "97.22 %"),
        (percent(0.99996, 10_000), "99.996 %"),
        (percent(0.0004), "0.04 %"),
        (percent(1.0), "100.0 %"),
        (percent(0.0), "0.0 %"),
        (percent(None), "–"),
        (percent(math.nan), "–"),
        (signed_points(-0.011, 360), "−1.1 points"),
        (signed_points(0.0, 360), "0.0 points"),
        (number(0.07128), "0.0713"),
        (number(-1234.5), "−1,234"),
        (number(0.0000123), "1.23e-05"),
        (scaled(11_689_512), "11.7 M"),
        (scaled(999_950, "B"), "1.00 MB"),
        (scaled(1_820_000_000), "1.82 G"),
        (scaled(12.0, "B"), "12.0 B"),
        (duration(4321), "1 h 12 min"),
        (duration(3600), "1 h"),
        (duration(59.96), "1 min"),
    ],
)
def test_numbers_in_words(text: str, expected: str) -> None:
    assert text.replace("\xa0", " ") == expected


def test_inherited_weights_are_named(tmp_path: Path) -> None:
    job = write_job(tmp_path / "job")
    assert comparison(read_job(job)).startswith("Distillation gained")
    change(job / "student/config.json", "run", "inherit", to={"width": 0.5})
    assert comparison(read_job(job)).startswith("Distillation with inherited weights gained")


def test_intervals_overlap() -> None:
    a, b, c = (
        Evaluation(top1_interval=bounds) for bounds in ((0.90, 0.95), (0.94, 0.97), (0.96, 0.98))
    )
    assert overlaps(a, b) is True
    assert overlaps(b, c) is True
    assert overlaps(a, c) is False
    assert overlaps(a, Evaluation()) is None
