"""Warnings about objectives whose terms do not go together."""

from kdjax.training.watch import complaints


def test_a_term_far_from_the_task_is_named_once_with_its_distance():
    pulls = {"task": 1.0, "weak": 0.005, "strong": 300.0, "fine": 2.0, "off": 0.0}
    found = complaints(["task"], pulls, {})
    assert set(found) == {"weak", "strong"}
    assert "200 times weaker" in found["weak"]
    assert "300 times harder" in found["strong"]


def test_an_adapter_that_no_gradient_reaches_is_named():
    found = complaints(["task"], {"task": 1.0, "a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.5})
    assert set(found) == {"a"}
    assert "no gradient reaches its adapter" in found["a"]


def test_an_objective_without_a_task_is_not_measured():
    assert complaints([], {"a": 1.0, "b": 1e6}, {}) == {}
