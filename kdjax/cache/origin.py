"""What a teacher's answers depend on, so that they are never used for anything else."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdjax.data.augment import TEACHER_VIEWS, VIEWS, Augmentation
from kdjax.data.sources import DataInfo
from kdjax.experiment import Cache, Data, Run
from kdjax.experiment.json import differences, to_dict
from kdjax.models import Model


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Everything that an answer for (example, view) is a function of, and how much of it is kept.

    The batch an example fell into, the number of devices and where things lie are not among it.
    """

    teacher: str
    """Digest of its weights."""
    model: Model
    """The network, which normalises its own pixels."""
    data: DataInfo
    """Images and classes."""
    split: str
    """Of them, in TFDS notation."""
    augment: tuple[Augmentation, ...]
    """Views that the teacher sees."""
    stream: int
    """Stream of the seed that views are drawn from."""
    seed: int
    """Of the views; 0 where nothing is random."""
    top_k: int | None
    embedding: bool

    @property
    def kept(self) -> Cache:
        """What is kept of the outputs."""
        return Cache(top_k=self.top_k, embedding=self.embedding)


def origin_of(run: Run, teacher: str, model: Model, info: DataInfo) -> Origin:
    """Of the answers that a run needs, `teacher` being the digest of the weights."""
    data = run.data
    own = data.teacher_augment is not None
    augment = data.augment if data.teacher_augment is None else data.teacher_augment
    return Origin(
        teacher=teacher,
        model=model,
        data=info,
        split=data.train,
        augment=augment,
        stream=TEACHER_VIEWS if own and augment else VIEWS,
        seed=run.seed if augment else 0,
        top_k=run.cache.top_k,
        embedding=run.cache.embedding,
    )


def check_same(where: str, found: Origin, wanted: Origin) -> None:
    """Raise ValueError that says what differs."""
    lines = differences(to_dict(found), to_dict(wanted))
    if lines:
        raise ValueError(
            f"teacher.cache.directory: {where} holds other answers ({_few(lines)}); name another "
            "directory, and it is built there."
        )


def views_needed(data: Data, epochs: int, augment: Sequence[Augmentation]) -> int:
    """Views of each example that so many epochs, the last begun, may see.

    With examples that are drawn there is a cycle: `check_cache` asks for it.
    """
    if not augment:
        return 1
    if data.sampling != "instance":
        assert data.cycle is not None
        return data.cycle
    endless = epochs * data.views
    return endless if data.cycle is None else min(data.cycle, endless)


def _few(lines: Sequence[str], most: int = 3) -> str:
    more = f"; {len(lines) - most} more" if len(lines) > most else ""
    return "; ".join(lines[:most]) + more
