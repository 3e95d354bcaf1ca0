"""Distillation by singular value decomposition (Lee et al., 2018, arXiv:1807.06819)."""

import functools
from itertools import pairwise

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kdjax.losses.base import require_teacher, unit
from kdjax.losses.stages import ConsecutiveStagesLoss, maps
from kdjax.types import Batch, Outputs

CANDIDATES = 4


class KDSVD(ConsecutiveStagesLoss):
    """How the main direction of a stage's channels goes with that of the next stage.

    A map is a matrix of pixels by channels, and `v` its first right singular vector: what the
    channels mostly do together. Summed over consecutive stages, and over pairs of channels `c, d`:

        (exp(-(v_s[c] - v_s'[d])² / 8) - exp(-(v_t[c] - v_t'[d])² / 8))²

    A singular vector may be multiplied by -1, and singular vectors change places as the student
    learns. So, as in the code of the benchmarks, `v_s` is that of the student's first four which
    is most parallel to the teacher's, pointing the same way. The teacher's own sign, which is left
    to the linear algebra library there, is here the one whose entries have a positive sum. Where
    the teacher's map is zero, both vectors are.

    Student and teacher need equal widths; maps may differ in size. Usual weight: 1.
    """

    def __call__(
        self, student: Outputs, teacher: Outputs | None, batch: Batch
    ) -> Float[Array, " b"]:
        """Summed over pairs of channels, per example."""
        teacher = require_teacher(self, teacher)
        directions = [
            main_directions(*maps(student, teacher, tap)) for tap in self.taps(student, teacher)
        ]
        total = jnp.zeros(student.logits.shape[0])
        for (v_s, v_t), (next_s, next_t) in pairwise(directions):
            gap = _similarity(v_s, next_s) - _similarity(v_t, next_t)
            total += jnp.square(gap).sum(axis=(1, 2))
        return total


def main_directions(
    f_s: Float[Array, "b h w c"], f_t: Float[Array, "b H W c"]
) -> tuple[Float[Array, "b c"], Float[Array, "b c"]]:
    """Of the student and of the teacher, pointing the same way."""
    v_t = right_singular_vectors(f_t, 1)[:, :, 0]
    v_t = jnp.where(v_t.sum(axis=1, keepdims=True) < 0, -v_t, v_t)
    candidates = right_singular_vectors(f_s, CANDIDATES)
    cosine = jnp.einsum("bck,bc->bk", candidates, v_t, precision="highest")
    nearest = jnp.abs(cosine).argmax(axis=1)[:, None]
    v_s = jnp.take_along_axis(candidates, nearest[:, None], axis=2)[:, :, 0]
    v_s = jnp.where(jnp.take_along_axis(cosine, nearest, axis=1) < 0, -v_s, v_s)
    alive = jnp.any(f_t != 0, axis=(1, 2, 3))[:, None]
    return v_s * alive, v_t * alive


def right_singular_vectors(features: Float[Array, "b h w c"], count: int) -> Float[Array, "b c k"]:
    """The first ones of the matrix of pixels by channels, from its smaller square."""
    examples, *_, channels = features.shape
    x = unit(features.reshape(examples, -1)).reshape(examples, -1, channels)
    if channels <= x.shape[1]:
        return eigenvectors(jnp.einsum("bpc,bpd->bcd", x, x, precision="highest"), count)
    left = eigenvectors(jnp.einsum("bpc,bqc->bpq", x, x, precision="highest"), count)
    return unit(jnp.einsum("bpc,bpk->bck", x, left, precision="highest"), axis=1)


def eigenvectors(matrix: Float[Array, "b n n"], count: int) -> Float[Array, "b n k"]:
    """Those of the largest eigenvalues of a symmetric matrix, with a derivative that is finite.

    To first order `v_j` moves by `sum_i v_i (v_iᵀ dM v_j) / (λ_j - λ_i)`. Between vectors whose
    eigenvalues are equal, as far as float32 can tell, nothing moves: any mixture of them would do.
    """
    values, vectors = decomposition(jax.lax.stop_gradient(matrix))
    values, vectors = values[:, ::-1], vectors[:, :, ::-1]
    first = vectors[:, :, :count]
    gap = values[:, None, :count] - values[:, :, None]
    least = matrix.shape[-1] * jnp.finfo(jnp.float32).eps * values[:, :1, None]
    apart = jnp.abs(gap) > least
    # At this very matrix the movement is zero but for rounding, which it takes away.
    moves = jnp.einsum("bmi,bmn,bnj->bij", vectors, matrix, first, precision="highest")
    moves = jnp.where(apart, moves / jnp.where(apart, gap, 1.0), 0.0)
    return first + jnp.einsum("bni,bij->bnj", vectors, moves, precision="highest")


def decomposition(matrix: Float[Array, "b n n"]) -> tuple[Array, Array]:
    """Eigenvalues, rising, and eigenvectors of symmetric matrices."""
    # On a CPU jaxlib shares a batch out among the threads of a pool, and one of them waits for the
    # others: as many decompositions at a time as there are threads wait for each other for ever.
    one_by_one = functools.partial(jax.lax.map, jnp.linalg.eigh)
    values, vectors = jax.lax.platform_dependent(matrix, cpu=one_by_one, default=jnp.linalg.eigh)
    return values, vectors


def _similarity(v: Float[Array, "b c"], w: Float[Array, "b d"]) -> Float[Array, "b c d"]:
    # Less one, which all have in common and float32 has few digits beside.
    return jnp.expm1(-jnp.square(v[:, :, None] - w[:, None, :]) / 8)
