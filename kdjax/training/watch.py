"""What is wrong with an objective, seen from how hard its terms pull at the student."""

from collections.abc import Mapping, Sequence

FAR = 100.0
"""How many times weaker or stronger than the task a term is before it is worth a warning."""


def complaints(
    task: Sequence[str],
    pulls: Mapping[str, float],
    adapters: Mapping[str, float],
) -> dict[str, str]:
    """By term, what to do about it; empty if all is well.

    `task` names the terms that need no teacher, `pulls` are the norms of all weighted gradients on
    the student, `adapters` those on the adapters of the terms that have any. A term without any
    weight for now says nothing.
    """
    found = {}
    measure = max((pulls[name] for name in task), default=0.0)
    for name, pull in pulls.items():
        if name in task or not pull or not measure:
            continue
        times = pull / measure
        if not 1 / FAR <= times <= FAR:
            how = f"{times:,.0f} times harder" if times > 1 else f"{1 / times:,.0f} times weaker"
            found[name] = (
                f"{name} pulls {how} at the student than the task does; change its weight, or set "
                "fit.balance."
            )
    for name, pull in adapters.items():
        if pulls[name] and not pull:
            found[name] = (
                f"{name}: no gradient reaches its adapter, so it learns nothing; check the stages "
                "it compares."
            )
    return found
