"""Cross-entropy: the task itself."""

from kdjax.losses import CrossEntropy
from tests.losses.contract import Spec, contract
from tests.losses.formulas import log_softmax


def formula(loss, student, teacher, labels, own):
    log_p = log_softmax(student["logits"])
    hard = -log_p[range(len(labels)), labels]
    return (1 - loss.label_smoothing) * hard - loss.label_smoothing * log_p.mean(axis=-1)


TestCrossEntropy = contract(
    Spec(
        CrossEntropy,
        formula,
        cases={"hard": CrossEntropy(), "smoothed": CrossEntropy(label_smoothing=0.3)},
        other_values={"label_smoothing": 0.1},
    )
)


def test_the_task_needs_no_teacher():
    assert not CrossEntropy.needs_teacher
