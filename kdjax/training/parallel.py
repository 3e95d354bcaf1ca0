"""Spreading a per-device function over all devices: the only file that knows pmap.

A function written for one device, with explicit collectives over `AXIS`, takes (state, fixed,
batch). State and what is fixed are replicated and unstacked, the batch is split along its first
axis, and the result is replicated: the function must reduce it before it returns, since neither
backend checks. What was handed over is copied: its memory may be filled again at once.
"""

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from kdjax.types import AXIS, Batch

T = TypeVar("T")
Backend = Literal["pmap", "shard_map"]

IN_FLIGHT = 2
"""Steps dispatched before the host waits for the oldest."""


class Devices:
    """The devices of a run, and how arrays get onto them and back."""

    def __init__(self, backend: Backend = "pmap", count: int | None = None) -> None:
        """`count` devices, or all. With several processes it must be all of them."""
        pin_arithmetic()
        available, processes = jax.device_count(), jax.process_count()
        if count is not None and (count > available or (processes > 1 and count != available)):
            raise ValueError(
                f"runtime.devices: {count} asked for, but {processes} process(es) see {available} "
                f"({jax.default_backend()}); leave it unset to use them all."
            )
        self.backend = backend
        self.all = jax.devices()[:count]
        self.local = [d for d in self.all if d.process_index == jax.process_index()]
        # A CPU that trains has no time to spare, and no memory for two programs in the making.
        self.idle_host = self.all[0].platform != "cpu"
        # pmap takes and returns arrays of this process; shard_map arrays of all processes.
        mesh = Mesh(np.array(self.local if backend == "pmap" else self.all), (AXIS,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._split = NamedSharding(mesh, PartitionSpec(AXIS))

    @property
    def count(self) -> int:
        """Devices in all processes."""
        return len(self.all)

    def check_batch(self, field: str, batch_size: int, slices: int = 1) -> None:
        """Raise ValueError unless every device gets the same number of examples."""
        unit = self.count * slices
        if batch_size % unit:
            below = batch_size // unit * unit
            fits = f"{below} or {below + unit}" if below else f"{unit}"
            what = f"{self.count} devices" + (f" x {slices} slices" if slices > 1 else "")
            raise ValueError(
                f"{field}: {batch_size} does not divide over {what}; {fits} would "
                f"(multiples of {unit})."
            )

    def rows(self, batch_size: int, slices: int = 1) -> np.ndarray:
        """The rows of a global batch this process feeds, in the order `split` expects them.

        A device's examples belong to the same slice on any number of devices, so accumulating
        gradients over slices means the same everywhere.
        """
        per_slice = batch_size // (self.count * slices)
        grid = np.arange(batch_size).reshape(slices, self.count, per_slice).transpose(1, 0, 2)
        first = jax.process_index() * len(self.local) if jax.process_count() > 1 else 0
        return grid[first : first + len(self.local)].reshape(-1)

    def split(self, batch: Batch) -> Batch:
        """Host arrays, one equal part to each of this process's devices."""
        stacked = jax.tree.map(lambda x: x.reshape(len(self.local), -1, *x.shape[1:]), batch)
        return jax.tree.map(lambda x: self._put(x, self._split), stacked)

    def split_all(self, batches: Sequence[Batch]) -> Batch:
        """Batches that are stepped through one after the other: `[steps, …]` on each device."""

        def stacked(*parts: np.ndarray) -> np.ndarray:
            return np.stack([x.reshape(len(self.local), -1, *x.shape[1:]) for x in parts], axis=1)

        whole = jax.tree.map(stacked, *batches)
        return jax.tree.map(lambda x: self._put(x, self._split), whole)

    def replicate(self, tree: T) -> T:
        """Host arrays, a copy to every device."""
        return jax.tree.map(lambda x: self._put(x, self._replicated), tree)

    def shapes(self, state: Any, fixed: Any, batch: Any) -> tuple[Any, Any, Any]:
        """What `replicate` and `split` make of arrays like these, as shapes."""
        local = len(self.local)

        def whole(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._replicated)

        def part(x: Any) -> jax.ShapeDtypeStruct:
            shape = (local, x.shape[0] // local, *x.shape[1:])
            return jax.ShapeDtypeStruct(shape, x.dtype, sharding=self._split)

        replicated = jax.tree.map(whole, (state, fixed))
        return (*replicated, jax.tree.map(part, batch))

    def _put(self, x: Any, sharding: NamedSharding) -> jax.Array:
        # Memory of the host may be taken over, whatever `may_alias` says: if it lies well for XLA.
        own = np.array(x)
        if sharding.is_fully_addressable:
            return jax.device_put(own, sharding)
        return jax.make_array_from_process_local_data(sharding, own)

    def spread(self, function: Callable[..., T], *, donate: bool) -> "Spread[T]":
        """`function(state, fixed, batch)` for all devices."""
        return Spread(self._mapped(function, donate), self.idle_host)

    def _mapped(self, function: Callable[..., T], donate: bool) -> Any:
        donated = (0,) if donate else ()
        if self.backend == "pmap":
            devices = self.all if jax.process_count() == 1 else None
            return jax.pmap(
                function,
                axis_name=AXIS,
                in_axes=(None, None, 0),
                out_axes=None,
                devices=devices,
                donate_argnums=donated,
            )

        def on_device(state: Any, fixed: Any, batch: Any) -> T:
            return function(state, fixed, jax.tree.map(lambda x: x[0], batch))

        replicated = PartitionSpec()
        # With check_vma=True gradients of replicated parameters arrive already summed, and an
        # explicit psum would count every device again.
        mapped = jax.shard_map(
            on_device,
            mesh=self._split.mesh,
            in_specs=(replicated, replicated, PartitionSpec(AXIS)),
            out_specs=replicated,
            check_vma=False,
        )
        return jax.jit(mapped, donate_argnums=donated)

    def each(self, function: Callable[[Any, T], Any]) -> Callable[[Any, T], Any]:
        """Compile `function(fixed, batch)` for the devices of this process, each on its own.

        A batch on the host, in the order of `rows`, becomes results on the host in that order.
        There are no collectives, so it may run beside other work and on one process of several.
        """
        mesh = Mesh(np.array(self.local), (AXIS,))
        parts = PartitionSpec(AXIS)
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=(PartitionSpec(), parts), out_specs=parts, check_vma=False
        )
        compiled, split = jax.jit(mapped), NamedSharding(mesh, parts)

        def run(fixed: Any, batch: T) -> Any:
            placed = jax.tree.map(lambda x: jax.device_put(x, split), batch)
            return jax.tree.map(np.asarray, compiled(fixed, placed))

        return run


class Spread(Generic[T]):
    """A function on all devices, compiled when it is first called, for the shapes it gets then."""

    def __init__(self, mapped: Any, idle_host: bool) -> None:
        """`mapped`: what `jax.pmap` or `jax.jit` returns."""
        self._mapped, self._idle_host = mapped, idle_host
        self._compiled: Any = None
        self._ahead: Future[Any] | None = None

    def lower(self, *arguments: Any) -> Any:
        """The program for arguments like these, before it is compiled."""
        return self._mapped.lower(*arguments)

    def compile(self, *arguments: Any) -> Any:
        """The program for arguments like these."""
        return _compiled(self.lower(*arguments))

    def ahead(self, compiler: Executor, *shapes: Any) -> None:
        """Have it made elsewhere for arguments of these shapes, to be there when it is called.

        Where the host is not idle it is only traced: XLA uses all cores for one program. Not with
        several processes, where pmap's program takes other arrays than pmap does.
        """
        if jax.process_count() == 1:
            make = self.compile if self._idle_host else self.lower
            self._ahead = compiler.submit(make, *shapes)

    def __call__(self, *arguments: Any) -> T:
        """The result, under way."""
        if jax.process_count() > 1:
            return self._mapped(*arguments)
        if self._compiled is None:
            ahead, self._ahead = self._ahead, None
            made = ahead.result() if ahead else self.lower(*arguments)
            self._compiled = _compiled(made) if isinstance(made, jax.stages.Lowered) else made
        return self._compiled(*arguments)


def _compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    return lowered.compile(compiler_options=_compiler_options())


EIGEN: dict[str, str | bool] = {
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
}
"""Leaves convolutions on a CPU to Eigen, which makes most steps faster (docs/performance.md)."""


@functools.cache
def _compiler_options() -> dict[str, str | bool]:
    """For this backend. The name of the option is experimental: where XLA has none, it is left."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda x: x).lower(0.0).compile(compiler_options=dict(EIGEN))
    except jax.errors.JaxRuntimeError:
        return {}
    return EIGEN


def in_flight(results: Iterable[T]) -> Iterator[T]:
    """The same results, each handed out only when `IN_FLIGHT` later ones are under way.

    The device is never idle while the host looks at a result, and the host never runs far ahead:
    on fake CPU devices an unbounded queue of collectives deadlocks.
    """
    waiting: deque[T] = deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > IN_FLIGHT:
            yield waiting.popleft()
    yield from waiting


def fetch(tree: T) -> T:
    """One replica, as NumPy arrays of their own."""
    replica = jax.tree.map(lambda x: x.addressable_shards[0].data, tree)
    return jax.tree.map(np.array, jax.device_get(replica))


def pin_arithmetic() -> None:
    """What a run's bits depend on, whatever the environment says.

    Other random numbers, or wider ones, would be other weights, views and answers in a cache, under
    the same seed.
    """
    jax.config.update("jax_default_prng_impl", "threefry2x32")
    jax.config.update("jax_threefry_partitionable", True)
    jax.config.update("jax_enable_x64", False)


def set_up_compilation_cache() -> None:
    """Keep every compiled program, so that the second start of a job compiles nothing."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(root) / "kdjax" / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
