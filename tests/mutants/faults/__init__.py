"""Every fault, by the part of the package it is in."""

from tests.mutants.faults import (
    cache,
    data,
    evaluation,
    experiment,
    keeping,
    losses,
    models,
    outward,
    recent_losses,
    training,
)

FAULTS = (
    *models.FAULTS,
    *losses.FAULTS,
    *recent_losses.FAULTS,
    *data.FAULTS,
    *experiment.FAULTS,
    *cache.FAULTS,
    *training.FAULTS,
    *keeping.FAULTS,
    *evaluation.FAULTS,
    *outward.FAULTS,
)
