"""Which stages of student and teacher belong together, and how their maps are read."""

import math

from jaxtyping import Array, Float

from kdjax.losses.base import DistillationLoss, Tap, require_teacher
from kdjax.models.base import adaptive_pool
from kdjax.models.stages import pixels, stages
from kdjax.types import Outputs


class StageLoss(DistillationLoss):
    """Compares one stage of the student with one of the teacher."""

    stage: str = ""
    """Stage of the student; empty: its last."""
    teacher_stage: str = ""
    """Stage of the teacher; empty: of the same name, or the one that matches the student's."""

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """The one pair."""
        return (_pair_stage(self, student, teacher, self.stage, self.teacher_stage),)

    def maps(self, student: Outputs, teacher: Outputs | None) -> tuple[Array, Array]:
        """The two maps it compares; ValueError without a teacher."""
        teacher = require_teacher(self, teacher)
        (tap,) = self.taps(student, teacher)
        return maps(student, teacher, tap)


class StagesLoss(DistillationLoss):
    """Compares stages of the student with stages of the teacher, in pairs."""

    stages: tuple[str, ...] = ()
    """Stages of the student, from shallow to deep; empty: all."""
    teacher_stages: tuple[str, ...] = ()
    """Stages of the teacher, in the same order; empty: those of the same names, or that match."""

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """Stages in pairs."""
        return _pair_stages(self, student, teacher, self.stages, self.teacher_stages)


class ConsecutiveStagesLoss(StagesLoss):
    """Compares what leads from a stage to the next, channel with channel."""

    def taps(self, student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
        """Stages in pairs, at least two and of equal widths."""
        taps = _pair_stages(self, student, teacher, self.stages, self.teacher_stages)
        _require_two(self, taps)
        _require_equal_widths(self, student, teacher, taps)
        return taps


def chosen_stages(
    loss: DistillationLoss, who: str, outputs: Outputs, names: tuple[str, ...]
) -> tuple[str, ...]:
    """The stages that were named, or all. ValueError for those that `who` has not."""
    for name in names:
        _require_stage(loss, who, name, outputs)
    return names or stages(outputs)


def _pair_stages(
    loss: DistillationLoss,
    student: Outputs,
    teacher: Outputs,
    ours: tuple[str, ...],
    theirs: tuple[str, ...],
) -> tuple[Tap, ...]:
    """The stages that were named, or, where none were, those that match.

    As many stages on both sides are paired in order. Otherwise each of the student's is paired with
    the teacher's of the nearest resolution, the deepest of equally near ones. ValueError for stages
    there are not, or for names that leave one without a partner.
    """
    if not ours and not theirs:
        return _matched(student, teacher)
    ours = ours or stages(student)
    theirs = theirs or ours
    if len(ours) != len(theirs):
        raise ValueError(
            f"{type(loss).__name__}: {len(ours)} student stages but {len(theirs)} teacher "
            "stages; give one teacher stage for each."
        )
    ours = chosen_stages(loss, "student", student, ours)
    theirs = chosen_stages(loss, "teacher", teacher, theirs)
    return tuple(zip(ours, theirs, strict=True))


def _pair_stage(
    loss: DistillationLoss, student: Outputs, teacher: Outputs, ours: str, theirs: str
) -> Tap:
    """The two stages that were named, or the last ones that match.

    A stage of the student alone means that of the same name, one of the teacher alone goes with
    the student's last.
    """
    if not ours and not theirs:
        return _matched(student, teacher)[-1]
    ours = ours or stages(student)[-1]
    return _pair_stages(loss, student, teacher, (ours,), (theirs or ours,))[0]


def _matched(student: Outputs, teacher: Outputs) -> tuple[Tap, ...]:
    ours, theirs = stages(student), stages(teacher)
    if len(ours) == len(theirs):
        return tuple(zip(ours, theirs, strict=True))

    def nearest(name: str) -> str:
        size = pixels(student, name)
        return min(reversed(theirs), key=lambda t: abs(math.log(pixels(teacher, t) / size)))

    return tuple((name, nearest(name)) for name in ours)


def _require_stage(loss: DistillationLoss, who: str, name: str, outputs: Outputs) -> None:
    if name not in outputs.features:
        have = ", ".join(outputs.features)
        raise ValueError(f"{type(loss).__name__}: the {who} has no stage {name!r}; it has {have}.")


def maps(
    student: Outputs, teacher: Outputs, tap: Tap
) -> tuple[Float[Array, "b h w c"], Float[Array, "b H W C"]]:
    """The two feature maps of a tap, in float32."""
    ours, theirs = tap
    return student.features[ours].astype("float32"), teacher.features[theirs].astype("float32")


def maps_before_relu(
    student: Outputs, teacher: Outputs, tap: Tap
) -> tuple[Float[Array, "b h w c"], Float[Array, "b H W C"]]:
    """The two maps of a tap before their last ReLU, in float32; without one, the feature maps."""
    ours, theirs = tap
    return _before_relu(student, ours), _before_relu(teacher, theirs)


def _before_relu(outputs: Outputs, name: str) -> Array:
    found = outputs.preactivations.get(name, outputs.features[name])
    return found.astype("float32")


def pool_to_common(a: Array, b: Array) -> tuple[Array, Array]:
    """Average-pool the larger of two `[b, H, W, C]` maps to the size of the smaller."""
    height, width = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return adaptive_pool(a, height, width), adaptive_pool(b, height, width)


def _require_equal_widths(
    loss: DistillationLoss, student: Outputs, teacher: Outputs, taps: tuple[Tap, ...]
) -> None:
    """The rule of losses that compare channel with channel and have no adapter."""
    for ours, theirs in taps:
        f_s, f_t = student.features[ours], teacher.features[theirs]
        if f_s.shape[-1] != f_t.shape[-1]:
            shapes = ["x".join(map(str, f.shape[1:])) for f in (f_s, f_t)]
            raise ValueError(
                f"{type(loss).__name__}: the student's {ours} of {shapes[0]} has not as many "
                f"channels as the teacher's {theirs} of {shapes[1]}; choose stages of equal "
                "widths, or another loss."
            )


def _require_two(loss: DistillationLoss, taps: tuple[Tap, ...]) -> None:
    """The rule of losses of consecutive stages."""
    if len(taps) < 2:
        raise ValueError(
            f"{type(loss).__name__}: {len(taps)} stage has no next one; name at least two stages."
        )
