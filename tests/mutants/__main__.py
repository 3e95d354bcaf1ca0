"""`python -m tests.mutants`: which of the planted faults do the tests notice?

Exits with 1 if one survived, with 2 if one could not be tried.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.mutants.fault import Fault
from tests.mutants.faults import FAULTS
from tests.mutants.run import Verdict, check_sound, verdict

HERE = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant, run, print, write."""
    flags = _parser().parse_args(arguments)
    chosen = _chosen(flags.only)
    if flags.list:
        for fault in chosen:
            print(f"{fault.id:<34} {fault.file:<34} {fault.kind}")
        return 0
    found = []
    for fault in chosen:
        found.append(verdict(fault, flags.package, flags.suite))
        print(_line(found[-1]), flush=True)
        if flags.output:
            _write(flags.output, found)
    unsound = check_sound(found, flags.package)
    print("\n".join(["", *map(_line, unsound), _count(found)]))
    words = {each.word for each in [*found, *unsound]}
    return 2 if "error" in words else 1 if "survived" in words else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ID", help="these faults instead of all")
    parser.add_argument("--list", action="store_true", help="what faults there are; runs nothing")
    parser.add_argument(
        "--suite", choices=("likely", "all"), default="likely", help="the tests that are run"
    )
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="write the verdicts")
    parser.add_argument(
        "--package", type=Path, default=HERE, metavar="DIR", help="another checkout, with its tests"
    )
    return parser


def _chosen(only: Sequence[str] | None) -> Sequence[Fault]:
    known = {fault.id: fault for fault in FAULTS}
    if unknown := set(only or ()) - set(known):
        sys.exit(f"--only: no fault is called {', '.join(sorted(unknown))}; see --list")
    return [known[name] for name in only] if only else FAULTS


def _line(found: Verdict) -> str:
    return f"{found.id:<34} {found.word:<9} {found.seconds:5.0f} s  {found.by}".rstrip()


def _count(found: Sequence[Verdict]) -> str:
    words = Counter(each.word for each in found)
    return f"{len(found)} faults: {', '.join(f'{n} {word}' for word, n in words.items())}"


def _write(path: Path, found: Sequence[Verdict]) -> None:
    path.write_text(json.dumps([each._asdict() for each in found], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
