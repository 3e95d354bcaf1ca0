"""Tables for a terminal, a pipe and a job log: what those of several commands have in common."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

RULES = {"last": "last epoch", "best": "best epoch on the test set, ours beside it the last"}
"""Which epoch a published number belongs to."""


def titled(title: str) -> Table:
    """An empty table below its title."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    return table


def engineering(value: float) -> str:
    """Three figures and a unit: 41.6 M."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {unit}"
    return f"{value:.3g}"


def comparison(summary: Mapping[str, Any]) -> Table:
    """The networks of a job side by side on the test split: last checkpoint before best."""
    name = summary.get("name")
    table = titled(f"{name}: top-1 on the test split" if name else "top-1 on the test split")
    table.add_column("", no_wrap=True, min_width=8)
    published = summary.get("published")
    for column in ("parameters", "FLOPs", "last", "best", "95 %", "agrees", "ms"):
        table.add_column(column, justify="right", no_wrap=True)
        if column == "last" and published:
            table.add_column("published", justify="right", no_wrap=True)
    for role, model in summary["models"].items():
        latest, best = model["latest"], model["best"]
        low, high = best["top1_interval"]
        theirs = [_per_cent(published.get(role))] if published else []
        table.add_row(
            role,
            f"{model['parameters']:,}",
            engineering(model["flops"]),
            f"{latest['top1']:.2%}",
            *theirs,
            f"{best['top1']:.2%}",
            f"{100 * low:.1f}-{100 * high:.1f}",
            f"{best['agreement']:.1%}" if "agreement" in best else "",
            f"{model['latency_ms']['1']:.2f}",
        )
    notes = []
    if any("agreement" in model["best"] for model in summary["models"].values()):
        notes.append("95 %: interval of best; agrees: answers as the teacher; ms: one image, here")
    if published:
        notes.append(f"published: {published['source']}; {RULES[published['rule']]}")
    table.caption = "\n".join(notes)
    return table


def chosen_metrics(summary: Mapping[str, Any]) -> Table | None:
    """The metrics that the experiment chose, of the last checkpoints; None where it chose none."""
    found = {role: model["latest"].get("metrics", {}) for role, model in summary["models"].items()}
    names = dict.fromkeys(name for metrics in found.values() for name in metrics)
    if not names:
        return None
    table = titled("last checkpoints on the test split")
    for column in ("", *found):
        table.add_column(column, justify="right" if column else "left")
    for name in names:
        cells = (f"{m[name]:.4f}" if name in m else "" for m in found.values())
        table.add_row(name.replace("_", " "), *cells)
    return table


def _per_cent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}%"
