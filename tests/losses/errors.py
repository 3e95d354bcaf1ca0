"""How far every loss is from its formula in float64 NumPy: a column of `docs/methods.md`.

    python -m tests.losses.errors [LOSS ...]

The largest error of value and gradient over all cases, in units of the largest number expected;
the gradient of the formula is by finite differences, and parameters are all but the flat ones.
"""

import sys

import jax

from tests.losses.contract import slopes_and_formula, specs, value_and_formula
from tests.losses.support import error


def main(names: list[str]) -> None:
    """A row each, as soon as it is known."""
    for spec in specs():
        if not names or spec.kind.__name__ in names:
            jax.clear_caches()  # each program holds maps of memory, and a process may have so many
            cases = spec.cases.values()
            value = max(error(*value_and_formula(spec, loss)) for loss in cases)
            slope = max(
                error(*pair) for loss in cases for pair in slopes_and_formula(spec, loss).values()
            )
            print(f"| `{spec.kind.__name__}` | {value:.1e}, {slope:.1e} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
