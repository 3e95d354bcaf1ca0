"""Every fault, by the part of the package it is in."""

from tests.mutants.faults import (
    cache,
    data,
    evaluation,
    experiment,
    losses,
    models,
    outward,
    training,
)

FAULTS = (
    *models.FAULTS,
    *losses.FAULTS,
    *data.FAULTS,
    *experiment.FAULTS,
    *cache.FAULTS,
    *training.FAULTS,
    *evaluation.FAULTS,
    *outward.FAULTS,
)
