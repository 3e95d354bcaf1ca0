"""Runs joined to an ensemble, and a member of an ensemble as a run of its own.

Weights are copied; nothing is trained.
"""

from collections.abc import Sequence
from pathlib import Path

from kdjax.evaluation.load import Loaded, adapts, by, few, load_finished
from kdjax.experiment import UNKNOWN, Copied, Fit, Run
from kdjax.models import Ensemble, Model
from kdjax.models.ensemble import Weighting, join_variables, member_variables
from kdjax.training.run_directory import RunDirectory
from kdjax.training.untrained import check_empty, write_untrained


def join(
    runs: Sequence[Path],
    out: Path,
    *,
    weights: tuple[float, ...] = (),
    weighting: Weighting = "fixed",
    checkpoint: str = "best",
) -> Ensemble:
    """Write the ensemble of finished runs as a finished run.

    ValueError, and nothing is written, if they were not made for the same images and classes.
    """
    check_empty(RunDirectory(out))
    if len(runs) < 2:
        raise ValueError(f"RUN: {len(runs)} given; name two finished runs or more.")
    networks = [load_finished(str(run), run, checkpoint) for run in runs]
    first = _check_alike(networks)
    model = Ensemble(
        num_classes=len(first.info.classes),
        members=tuple(network.model for network in networks),
        weights=weights,
        weighting=weighting,
    )
    try:
        model.check()
    except ValueError as error:
        raise ValueError(f"--{error}") from error
    run = _run(first, model, tuple(_copied(network) for network in networks))
    variables = join_variables([network.variables for network in networks])
    write_untrained(RunDirectory(out), run, first.info, variables)
    return model


def split(run: Path, member: int, out: Path, *, checkpoint: str = "best") -> Model:
    """Write one member of an ensemble, counted from 0, as a finished run."""
    check_empty(RunDirectory(out))
    network = load_finished(str(run), run, checkpoint)
    model = network.model
    if not isinstance(model, Ensemble):
        raise ValueError(f"{run} is a {type(model).__name__} without members; name an Ensemble.")
    last = len(model.members) - 1
    if not 0 <= member <= last:
        raise ValueError(f"--member: {member} cannot work; {run} has members 0 to {last}.")
    alone = model.networks()[member]
    variables = member_variables(network.variables, member)
    written = _run(network, alone, (_copied(network, member),))
    write_untrained(RunDirectory(out), written, network.info, variables)
    return alone


def _run(like: Loaded, model: Model, copied: tuple[Copied, ...]) -> Run:
    return Run(
        role="teacher",
        seed=like.run.seed,
        data=like.run.data,
        metrics=like.run.metrics,
        model=model,
        losses=(),
        fit=Fit(epochs=0),
        copied=copied,
    )


def _copied(network: Loaded, member: int | None = None) -> Copied:
    return Copied(
        run=str(network.directory.absolute()),
        step=network.step,
        digest=network.digest,
        member=member,
    )


def _check_alike(networks: Sequence[Loaded]) -> Loaded:
    """The one whose data is that of all; imported ones take the place of any that fits."""
    first = next((network for network in networks if network.info.name != UNKNOWN), networks[0])
    for other in networks:
        if adapts(other.info, first.info):
            continue
        both = f"{first.directory} and {other.directory}"
        if first.info.shape != other.info.shape:
            sizes = f"{by(first.info.shape)} and {by(other.info.shape)}"
            raise ValueError(f"{both} take images of {sizes}; join runs of the same data.")
        if first.info.classes != other.info.classes:
            names = f"{few(first.info.classes)} and {few(other.info.classes)}"
            raise ValueError(f"{both} know the classes {names}; join runs of the same data.")
    return first
