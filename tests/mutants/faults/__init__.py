"""Every fault, by the part of the package it is in."""

from tests.mutants.faults import data, experiment, losses, models, rest, training

FAULTS = (
    *models.FAULTS,
    *losses.FAULTS,
    *data.FAULTS,
    *experiment.FAULTS,
    *training.FAULTS,
    *rest.FAULTS,
)
