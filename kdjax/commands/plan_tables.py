"""The outlook as tables for a terminal, a pipe and a job log."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from kdjax.commands.tables import engineering, titled
from kdjax.outlook.estimate import EXPECTED, STRETCH


def tables(result: Mapping[str, Any], detailed: bool) -> Iterator[Table]:
    """By chips, by images, and the account of the chosen scale."""
    yield by_chips(result)
    yield by_images(result)
    if detailed:
        yield account(result)


def by_chips(result: Mapping[str, Any]) -> Table:
    """The same job on more and more chips."""
    images = "x".join(map(str, result["shape"]))
    table = titled(
        f"{result['name']} on {result['chip']['name']}: batches of {result['batch']}, "
        f"{result['images']:,} images of {images}, {result['dtype']}"
    )
    _right(table, "chips", "a chip", "roof ms", "ms", "images/s", *_billed(result))
    table.add_column("bottleneck")
    for row in result["by_chips"]:
        table.add_row(
            f"{row['chips']:,}",
            f"{row['images_a_chip']:,}",
            _ms(row["roof_seconds"]),
            _ms(row["step_seconds"]),
            engineering(row["images_a_second"]),
            *_bill(row),
            _bottleneck(row),
        )
    table.caption = (
        f"ms: what to expect of a step, {EXPECTED:.0%} of the chip's roof, and the collectives; "
        "hours, chip-h: all runs of the job"
    )
    return table


def by_images(result: Mapping[str, Any]) -> Table:
    """The same job on more and more images."""
    at = result["at"]
    kept = list(at["answers"])
    table = titled(f"the same on {at['chips']:,} x {result['chip']['name']}, by images")
    _right(table, "images", *_billed(result), "cores", "order", *kept)
    table.add_column("bottleneck")
    for row in result["by_images"]:
        table.add_row(
            engineering(row["images"]),
            *_bill(row),
            f"{row['decode_cores']:.1f}",
            _bytes(row["permutation_bytes"]),
            *(_bytes(row["answers"][name]) for name in kept),
            _bottleneck(row),
        )
    answers = f"; {', '.join(kept)}: the teacher's answers for all views" if kept else ""
    table.caption = (
        f"cores: that decode in each host, of {at['host_cores']}; order: two permutations in each "
        f"process{answers}"
    )
    return table


def account(result: Mapping[str, Any]) -> Table:
    """Everything about the chosen scale, a line each."""
    at, chip = result["at"], result["chip"]
    table = titled(f"{at['chips']:,} x {chip['name']}, hosts: {at['hosts']:,}")
    table.show_header = False
    for name, text in _account(at, result["details"], chip):
        table.add_row(name, text)
    table.caption = f"{chip['name']}: {chip['source']}"
    return table


def checked(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Predicted beside measured."""
    table = titled("the outlook beside the benchmark")
    table.add_column("")
    _right(table, "measured ms", "roof ms", "of the roof", "expected ms", "error")
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
    roof, stretch, step = (_ms(at[f"{name}_seconds"]) for name in ("roof", "stretch", "step"))
    yield (
        "step",
        f"roof {roof} ms; at {STRETCH:.0%} of it {stretch}; expect {step}: {_bottleneck(at)}",
    )
    parts = [f"{name.replace('_', ' ')} {_ms(s)}" for name, s in details["seconds"].items()]
    yield "parts, ms", ", ".join(parts)
    if at["cached_step_seconds"]:
        cached = at["cached_step_seconds"]
        faster = f"expect {_ms(cached)} ms a step, {at['step_seconds'] / cached:.2f} x as fast"
        yield "teacher cached", f"{faster}; on disk {_sizes(at['answers'])}"
    yield "input", _input(at, details["resident"])
    total = sum(details["memory"].values())
    held = f"{_bytes(total)} of {_bytes(chip['memory'])}: {_sizes(details['memory'])}"
    yield "memory a chip", held if at["fits"] else f"{held}; {NO_ROOM}, or set fit.accumulate"
    seconds, share = details["checkpoint_seconds"], details["checkpoint_share"]
    size = _bytes(at["state_bytes"])
    yield "checkpoint", f"{size}, {seconds:.2f} s beside {share:.2%} of the training"
    for role, run in details["runs"].items():
        size = f"{run['parameters']:,} parameters; {run['steps']:,} steps"
        time = f"{_ms(run['step_seconds'])} ms, {_hours(run['hours'])} hours: {run['bottleneck']}"
        yield role, f"{size} of {time}"


NO_ROOM = "a run does not fit into memory: take more chips"


def _input(at: Mapping[str, Any], resident: bool) -> str:
    if resident:
        return f"{_bytes(at['set_bytes'])} of images lie on each chip"
    fed = f"{engineering(at['images_a_host'])} images/s, {_bytes(at['bytes_a_host'])}/s to a host"
    if not at["decode_cores"]:
        return f"{fed}; decoded once, and kept in its memory"
    return f"{fed}; {at['decode_cores']:.1f} of its {at['host_cores']} cores decode"


def _right(table: Table, *columns: str) -> None:
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)


def _billed(result: Mapping[str, Any]) -> list[str]:
    return ["hours", "chip-h"] + (["cost"] if result["price"] is not None else [])


def _bill(row: Mapping[str, Any]) -> list[str]:
    cost = [] if row["cost"] is None else [f"{row['cost']:,.2f}"]
    return [_hours(row["hours"]), _hours(row["chip_hours"]), *cost]


def _bottleneck(row: Mapping[str, Any]) -> str:
    return row["bottleneck"] if row["fits"] else "does not fit"


def _sizes(sizes: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_bytes(size)}" for name, size in sizes.items())


def _bytes(size: float) -> str:
    return f"{engineering(size)}B"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.3f}" if seconds < 0.1 else f"{1e3 * seconds:,.0f}"


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
