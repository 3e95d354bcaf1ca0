"""In what a network is found to be worth."""

from tests.mutants.fault import Fault

FAULTS = (
    Fault(
        "metrics-padding-in-top-1",
        "evaluation/metrics.py",
        "correct = (answer == batch.label) * mask",
        "correct = (answer == batch.label) * jnp.ones_like(mask)",
        "a mask ignored",
        ("test_evaluate.py::test_metrics_equal_numpy_for_any_size_and_any_devices",),
    ),
    Fault(
        "metrics-student-before-teacher",
        "evaluation/metrics.py",
        "kl = jnp.sum(jnp.exp(log_t) * (log_t - log_p), axis=-1)",
        "kl = jnp.sum(jnp.exp(log_p) * (log_p - log_t), axis=-1)",
        "the divergence the other way round",
        ("test_evaluate.py::test_metrics_equal_numpy_for_any_size_and_any_devices",),
    ),
    Fault(
        "evaluate-one-device-counts",
        "evaluation/evaluate.py",
        "return jax.lax.psum(sums(logits, target, batch), AXIS)",
        "return jax.lax.pmean(sums(logits, target, batch), AXIS)",
        "pmean for psum",
        ("test_evaluate.py::test_metrics_equal_numpy_for_any_size_and_any_devices",),
    ),
    Fault(
        "evaluate-answers-to-padding",
        "evaluation/evaluate.py",
        "return logits[mask], labels[mask]",
        "return logits, labels",
        "a mask ignored",
        ("test_doubts.py::test_the_same_is_seen_on_any_devices",),
    ),
    Fault(
        "load-raw-where-averaged",
        "evaluation/load.py",
        'weights or ("ema" if averaged else "raw")',
        'weights or "raw"',
        "other weights than those that validation saw",
        ("test_evaluate.py::test_raw_and_averaged_weights_and_steps_are_told_apart",),
    ),
    Fault(
        "load-unfinished",
        "evaluation/load.py",
        "if RunDirectory(network.directory).result() is None:",
        "if not network.directory.exists():",
        "an unfinished run teaches",
        (
            "test_evaluate.py::test_no_run_no_checkpoint_and_a_job_are_told_apart",
            "test_ensemble_runs.py::test_what_cannot_be_joined_or_split_is_named",
            "test_distill.py::test_a_teacher_from_another_run",
        ),
    ),
    Fault(
        "of-run-another-teacher",
        "evaluation/of_run.py",
        "if teacher.digest != reference.digest:",
        "if not teacher.digest:",
        "a digest not compared",
        ("test_evaluate.py::test_a_teacher_that_is_another_by_now_is_compared_with_nothing",),
    ),
    Fault(
        "probe-first-images-only",
        "evaluation/probe.py",
        "np.linspace(0, len(source) - 1, count).round().astype(int)",
        "np.arange(count)",
        "images of the first classes only",
        (
            "test_doubts.py::test_no_more_images_are_read_than_needed",
            "test_doubts.py::test_the_same_is_seen_on_any_devices",
        ),
    ),
    Fault(
        "doubts-tried-on-what-was-read",
        "evaluation/doubts.py",
        "    tried[read] = False\n",
        "",
        "chance is taken for an order of the classes",
        (
            "test_doubts.py::test_chance_is_no_order",
            "test_doubts.py::test_another_order_is_found_and_the_right_one_is_not",
            "test_doubts.py::test_one_answer_to_everything_is_no_order",
        ),
    ),
    Fault(
        "analysis-rows-for-columns",
        "evaluation/analysis.py",
        'np.add.at(confusion["student"], (labels, ours), 1)',
        'np.add.at(confusion["student"], (ours, labels), 1)',
        "axes swapped",
        ("test_evaluate.py::test_analysis_counts_every_example",),
    ),
)
