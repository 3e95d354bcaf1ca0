"""The outlook as tables for a terminal, a pipe and a job log."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from kdjax.outlook.estimate import EXPECTED, STRETCH
from kdjax.tables import engineering


def tables(result: Mapping[str, Any], detailed: bool) -> Iterator[Table]:
    """By chips, by images, and the account of the chosen scale."""
    yield by_chips(result)
    yield by_images(result)
    if detailed:
        yield account(result)


def by_chips(result: Mapping[str, Any]) -> Table:
    """The same job on more and more chips."""
    chip = result["chip"]
    table = _table(
        f"{result['name']} on {chip['name']}: batches of {result['batch']}, "
        f"{result['images']:,} images of {'x'.join(map(str, result['shape']))}, {result['dtype']}",
        ("chips", "a chip", "roof ms", "ms", "images/s", "hours", "chip-h"),
        result,
    )
    table.add_column("bottleneck")
    for row in result["by_chips"]:
        table.add_row(
            f"{row['chips']:,}",
            f"{row['images_a_chip']:,}",
            _ms(row["roof_seconds"]),
            _ms(row["step_seconds"]),
            f"{row['images_a_second']:,.0f}",
            *_bill(row),
            row["bottleneck"] if row["fits"] else f"{row['bottleneck']}; MEMORY DOES NOT DO",
        )
    table.caption = (
        f"ms: what to expect of a step, {EXPECTED:.0%} of the chip's roof and, above one chip, the "
        "collectives in full; hours and chip-h: all runs of the job"
    )
    return table


def by_images(result: Mapping[str, Any]) -> Table:
    """The same job on more and more images."""
    at = result["at"]
    kept = list(at["answers"])
    columns = ("images", "hours", "chip-h", "cores/host", "set", "order", *kept)
    table = _table(f"images, on {at['chips']:,} x {result['chip']['name']}", columns, result)
    for row in result["by_images"]:
        answers = [f"{engineering(row['answers'][name])}B" for name in kept]
        hours, *bill = _bill(row)
        table.add_row(
            f"{row['images']:,}",
            hours,
            bill[0],
            f"{row['decode_cores']:.1f}",
            f"{engineering(row['set_bytes'])}B",
            f"{engineering(row['permutation_bytes'])}B",
            *answers,
            *bill[1:],
        )
    table.caption = (
        f"cores/host: that decode, of {at['host_cores']}; set: decoded; order: two permutations in "
        "each process" + ("; then the teacher's answers for all views" if kept else "")
    )
    return table


def account(result: Mapping[str, Any]) -> Table:
    """Everything about the chosen scale, a line each."""
    at, details, chip = result["at"], result["details"], result["chip"]
    table = Table(
        box=SIMPLE_HEAD,
        title=f"{at['chips']:,} x {chip['name']}, hosts: {at['hosts']:,}",
        title_justify="left",
        show_header=False,
    )
    for name, text in _account(at, details, chip):
        table.add_row(name, text)
    table.caption = f"chip: {chip['source']}"
    return table


def checked(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Predicted beside measured."""
    columns = ("measured ms", "roof ms", "of the roof", "expected ms", "error")
    table = Table(box=SIMPLE_HEAD, title="the outlook and the benchmark", title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    for line in lines:
        table.add_row(
            line["what"],
            _ms(line["measured_seconds"]),
            _ms(line["roof_seconds"]),
            f"{line['share_of_roof']:.0%}",
            _ms(line["expected_seconds"]),
            f"{line['error']:+.0%}",
        )
    table.caption = f"expected: {EXPECTED:.0%} of the roof that the same file measured"
    return table


def _account(
    at: Mapping[str, Any], details: Mapping[str, Any], chip: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    yield (
        "step",
        (
            f"roof {_ms(at['roof_seconds'])} ms, {STRETCH:.0%} {_ms(at['stretch_seconds'])}, "
            f"expect {_ms(at['step_seconds'])}; bottleneck: {at['bottleneck']}"
        ),
    )
    parts = {name.replace("_", " "): _ms(value) for name, value in details["seconds"].items()}
    yield "parts, ms", ", ".join(f"{name} {value}" for name, value in parts.items())
    if at["cached_step_seconds"] is not None:
        sizes = ", ".join(f"{k} {engineering(v)}B" for k, v in at["answers"].items())
        faster = at["step_seconds"] / at["cached_step_seconds"]
        yield (
            "teacher cached",
            (
                f"expect {_ms(at['cached_step_seconds'])} ms a step ({faster:.2f} x); {sizes} on disk"
            ),
        )
    if details["resident"]:
        yield "input", f"{engineering(at['set_bytes'])}B of images lie on each chip"
    else:
        yield (
            "input",
            (
                f"{at['images_a_host']:,.0f} images/s and {engineering(at['bytes_a_host'])}B/s a host; "
                f"{at['decode_cores']:.1f} of {at['host_cores']} cores decode"
            ),
        )
    held = ", ".join(f"{k} {engineering(v)}B" for k, v in details["memory"].items())
    total, has = sum(details["memory"].values()), chip["memory"]
    yield (
        "memory a chip",
        (
            f"{held}: {engineering(total)}B of {engineering(has)}B"
            + ("" if at["fits"] else "; SOME RUN DOES NOT FIT: more chips, or fit.accumulate")
        ),
    )
    yield (
        "checkpoint",
        (
            f"{engineering(at['state_bytes'])}B, {details['checkpoint_seconds']:.2f} s beside the "
            f"training, {details['checkpoint_share']:.2%} of the time between two"
        ),
    )
    for role, run in details["runs"].items():
        yield (
            role,
            (
                f"{run['parameters']:,} parameters, {run['steps']:,} steps of "
                f"{_ms(run['step_seconds'])} ms: {_hours(run['hours'])} hours, {run['bottleneck']}"
            ),
        )


def _table(title: str, columns: Sequence[str], result: Mapping[str, Any]) -> Table:
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    for column in (*columns, *(["cost"] if result["price"] is not None else [])):
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _bill(row: Mapping[str, Any]) -> list[str]:
    cost = [] if row["cost"] is None else [f"{row['cost']:,.2f}"]
    return [_hours(row["hours"]), _hours(row["chip_hours"]), *cost]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3f}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
