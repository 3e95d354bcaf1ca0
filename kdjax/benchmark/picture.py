"""What a step's time goes into, as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")

from matplotlib.figure import Figure

PARTS = ("teacher", "student forward", "student backward", "optimizer", "augmentation", "rest")
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#a463f2", "#bbbbbb")


def shares(result: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of each part; `rest` is what the step takes beyond them: losses, and fusion."""
    seconds = {name: timing["seconds"] for name, timing in result["timings"].items()}
    forward = seconds["student forward"]
    parts = {
        "teacher": seconds["teacher"],
        "student forward": forward,
        "student backward": max(seconds["student forward and backward"] - forward, 0.0),
        "optimizer": seconds["optimizer"],
        "augmentation": seconds["augmentation"],
    }
    return {**parts, "rest": max(seconds["step"] - sum(parts.values()), 0.0)}


def draw(result: Mapping[str, Any], path: Path) -> None:
    """A bar for the step by parts, and bars for the loop, the cached step, others and the roof."""
    seconds = {name: timing["seconds"] for name, timing in result["timings"].items()}
    step, loop = result["step"], result["loop"]
    bars = {"training loop, all of it": loop["seconds_a_step_with_all"], "step": seconds["step"]}
    if "cached step" in seconds:
        bars["step, teacher's answers cached"] = seconds["cached step"]
    for name, timing in result.get("against", {"timings": {}})["timings"].items():
        bars[f"{name}, without augmentation"] = timing["seconds"]
    bars["least by this device's roof"] = step["share_of_roof"] * seconds["step"]
    figure = Figure(figsize=(8, 0.6 * (len(bars) + 1) + 1.4), layout="constrained")
    axes = figure.subplots()
    left, row = 0.0, len(bars)
    for (name, part), colour in zip(shares(result).items(), COLOURS, strict=True):
        axes.barh(row, 1e3 * part, left=left, color=colour, label=name, height=0.6)
        left += 1e3 * part
    for place, (_, value) in enumerate(bars.items()):
        at = row - 1 - place
        axes.barh(at, 1e3 * value, color="#8899aa", height=0.6)
        rate = result["about"]["batch"] / value
        axes.text(1e3 * value, at, f" {rate:,.0f} images/s", va="center", fontsize=8)
    axes.set_yticks(range(row, -1, -1), ["parts, each by itself", *bars])
    axes.set_xlabel(f"ms a step of {result['about']['batch']} images")
    axes.set_xlim(0, 1.25 * max(left, *(1e3 * value for value in bars.values())))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=3, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.25), frameon=False)
    about = result["about"]
    axes.set_title(
        f"{result['name']}: {about['teacher']} teaches {about['student']}, {about['images']}, "
        f"{about['dtype']}, {about['device']}",
        fontsize=9,
        loc="left",
    )
    figure.savefig(path, dpi=130)
