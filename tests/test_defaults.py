"""What a preset means where it says nothing."""

import json
from pathlib import Path
from typing import get_args

from kdjax.data.augment import Augmentation
from kdjax.experiment import Data, Derive, Fit, Measure
from kdjax.experiment.json import to_json
from kdjax.experiment.optim import Optimizer
from kdjax.experiment.schedules import Schedule
from kdjax.losses import Loss

STORED = Path(__file__).parent / "defaults.json"
UNIONS = (Optimizer, Schedule, Augmentation, Loss, Measure)
KINDS = (Data, Fit, Derive, *(get_args(union)[:-1] for union in UNIONS))


def defaults():
    kinds = [kind for each in KINDS for kind in (each if isinstance(each, tuple) else (each,))]
    return {kind.__name__: json.loads(to_json(kind())) for kind in kinds}


def test_defaults_are_those_of_yesterday():
    """They decide results. To change one: `python -m tests.test_defaults`, and the changelog."""
    assert defaults() == json.loads(STORED.read_text())


if __name__ == "__main__":
    STORED.write_text(json.dumps(defaults(), indent=2) + "\n")
