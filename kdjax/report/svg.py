"""Drawings as inline SVG that takes its colours and its typeface from the page.

Must not know what is drawn. Nothing here touches pyplot.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from kdjax.experiment import ASSISTANTS

# Matplotlib knows no CSS variables: it draws in these stand-ins, which `inline` replaces.
COLOURS = {
    "ink": "#000101",
    "muted": "#000202",
    "grid": "#000303",
    "teacher": "#000404",
    "baseline": "#000505",
    "student": "#000606",
    "assistant": "#000707",
}
COLOURS |= dict.fromkeys(ASSISTANTS, COLOURS["assistant"])  # one for all

WIDTH, HEIGHT = 3.6, 2.35
"""Inches; a panel is as wide as a phone, so that its text stays readable there."""
MARGIN = 0.5
"""Inches left of the axes, for the labels of ticks."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 8.4,
    "text.color": COLOURS["muted"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.edgecolor": COLOURS["grid"],
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "ytick.major.size": 0,
    "xtick.major.size": 3,
}


@contextmanager
def figure(
    key: str,
    height: float = HEIGHT,
    left: float = MARGIN,
    bottom: float = 0.42,
    right: float = 0.14,
) -> Iterator[Figure]:
    """A figure in the style of the page; the style ends with the block. All in inches.

    Margins are fixed: the axes of neighbouring panels line up, and no layout has to be solved.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": key}):
        drawing = Figure(figsize=(WIDTH, height))
        drawing.subplots_adjust(
            left=left / WIDTH,
            right=1 - right / WIDTH,
            bottom=bottom / height,
            top=1 - 0.08 / height,
        )
        yield drawing


def inline(drawing: Figure) -> Markup:
    """The drawing without a file's trappings, its stand-ins replaced by the page's variables."""
    buffer = io.StringIO()
    FigureCanvasSVG(drawing).print_svg(buffer, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", "", text, flags=re.S)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| (width|height)="[\d.]+pt"', "", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    text = text.replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)
    return Markup(re.sub(r"\s*\n\s*", " ", text))
