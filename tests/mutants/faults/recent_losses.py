"""In losses since 2024: the likely mistakes of whoever reads a paper."""

from tests.mutants.fault import Fault

FAULTS = (
    Fault(
        "ttm-student-softened",
        "losses/ttm.py",
        "log_q = jax.nn.log_softmax(student.logits)",
        "log_q = jax.nn.log_softmax(student.logits / temperature)",
        "a temperature for both",
        ("losses/test_ttm.py",),
    ),
    Fault(
        "rld-label-among-the-lower",
        "losses/rld.py",
        "below = teacher.logits < of_label",
        "below = teacher.logits <= of_label",
        "<= for <",
        ("losses/test_rld.py",),
    ),
    Fault(
        "abkd-corner-not-turned-round",
        "losses/abkd.py",
        "return divergence(log_q, log_p, beta, alpha)",
        "return divergence(log_p, log_q, beta, alpha)",
        "a divergence the other way round",
        ("losses/test_abkd.py",),
    ),
    Fault(
        "wkd-label-takes-part",
        "losses/wkd.py",
        "jax.nn.softmax(jnp.where(others, each.logits / temperature, -jnp.inf))",
        "jax.nn.softmax(each.logits / temperature)",
        "a mask ignored",
        ("losses/test_wkd.py",),
    ),
    Fault(
        "vitkd-mask-inside-out",
        "losses/vitkd.py",
        "return ranks >= seen",
        "return ranks < seen",
        "a comparison turned round",
        ("losses/test_vitkd.py",),
    ),
    Fault(
        "proteus-means-of-their-own",
        "losses/proteus.py",
        "self.feature * together.mean(axis=-1)",
        "self.feature * (of_token.mean(axis=-1) + of_map.mean(axis=-1))",
        "two means for one",
        ("losses/test_proteus.py",),
    ),
)
