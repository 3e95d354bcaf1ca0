"""From a run, a chip and a number of them to seconds, bytes and hours.

A layer takes `max(operations / rate, bytes / bandwidth)`, where bytes are so many moves of what it
writes. Constants are those of a model that was held against published speeds of ResNet-50 on A100
and H100: a very good program reaches 80 to 90 % of it, an ordinary one 60 %.
"""

import math
from dataclasses import dataclass

from kdjax.outlook.chips import Chip
from kdjax.outlook.workload import Network, Workload

MOVES, TRAINED_MOVES = 4, 14
"""Times an output is moved in inference (write, and apply batch norm: read, write, read again),
and in training, with statistics and the way back."""
SUM_MOVES, TRAINED_SUM_MOVES = 2, 5
"""The same for the sum of two maps, which has no batch norm of its own."""
KERNELS, TRAINED_KERNELS = 2, 8
"""Kernels a convolution or product costs: 218 for WRN-40-2 that teaches WRN-16-2."""
TRAINED_OPERATIONS = 3
"""Forward, and the gradients of input and kernel."""
EXPECTED, STRETCH = 0.6, 0.85
"""Shares of the roof that an ordinary and a very good program reach."""
LATENCY_JOINED, LATENCY_NETWORK = 10e-6, 30e-6
"""Seconds of a small all-reduce within a node or slice, and beyond: assumed, not measured."""
DECODED_PIXELS = 1e8
"""A core decodes a second: 1,900 to 2,400 JPEGs of 224x224, measured with Pillow."""
WRITTEN = 0.3e9
"""Bytes of a checkpoint written a second: 300 MB in 1.0 s, measured, beside the training."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A run on so many chips. Seconds are of one step, at the roof."""

    work: Workload
    chip: Chip
    chips: int
    compute: float
    """Layers whose operations take longer than their bytes."""
    memory: float
    """The other layers, and the optimizer."""
    launches: float
    """All kernels one after the other, were they empty."""
    all_reduce: float
    """Of the gradients, in one ring, without overlap: an upper bound."""
    batch_norm: float
    """Waiting for the small all-reduces of batch norm."""
    input: float
    """Decoding the host's images with all its cores."""

    @property
    def roof(self) -> float:
        """What the chip alone needs at least."""
        return max(self.compute + self.memory, self.launches)

    def step(self, share: float = EXPECTED) -> float:
        """Seconds of a step, given the share of the roof that the program reaches."""
        device = self.roof / share + self.all_reduce + self.batch_norm
        return max(device, self.input, self.checkpoint / self.work.steps_per_checkpoint)

    @property
    def checkpoint(self) -> float:
        """Seconds to write one, beside the training."""
        return self.work.state / WRITTEN

    @property
    def checkpoint_share(self) -> float:
        """Of the time from one to the next."""
        return self.checkpoint / self.work.steps_per_checkpoint / self.step()

    @property
    def bottleneck(self) -> str:
        """What most of a step's time goes into."""
        least = self.step()
        if self.input == least:
            return "input"
        if self.checkpoint / self.work.steps_per_checkpoint == least:
            return "checkpoint"
        busy = {"compute": self.compute, "memory bandwidth": self.memory}
        if self.launches > self.compute + self.memory:
            busy = {"launches": self.launches}
        parts = {name: seconds / EXPECTED for name, seconds in busy.items()}
        parts |= {"all-reduce": self.all_reduce, "batch norm": self.batch_norm}
        return max(parts, key=lambda name: parts[name])

    def hours(self, share: float = EXPECTED) -> float:
        """Of the whole run, without compilation and validation."""
        return self.work.steps * self.step(share) / 3600

    @property
    def images_a_second(self) -> float:
        """Of all chips."""
        return self.work.batch / self.step()

    @property
    def images_a_host(self) -> float:
        """That each host feeds a second; none where the set lies on the chips."""
        return 0.0 if self.work.resident else self.images_a_second / hosts(self.chip, self.chips)

    @property
    def decode_cores(self) -> float:
        """That each host needs for it; none where the set is decoded once and kept."""
        height, width, _ = self.work.shape
        per_second = self.images_a_host if self.work.decoded else 0.0
        return per_second * height * width / DECODED_PIXELS

    @property
    def needs(self) -> dict[str, float]:
        """Bytes on a chip, about: kept for the way back are two moves of each output."""
        work = self.work
        images = work.batch / self.chips / work.accumulate
        kept = 2 * work.student.size * sum(layer.outputs for layer in work.student.layers)
        fed = work.examples if work.resident else 3 * work.batch / self.chips
        return {
            "state": work.state,
            "gradients": 4 * work.parameters,
            "teacher": work.teacher_size,
            "activations": images * kept,
            "images": fed * work.pixels,
        }

    @property
    def fits(self) -> bool:
        """Whether the chip has as much memory."""
        return sum(self.needs.values()) <= self.chip.memory


def estimate(work: Workload, chip: Chip, chips: int) -> Estimate:
    """The run on so many of these chips; ValueError unless they divide its batch."""
    if not divides(work, chips):
        raise ValueError(
            f"--chips: {chips} do not divide the {work.role}'s global batch of {work.batch} into "
            f"{work.accumulate} slices; choose a divisor, or another fit.batch_size."
        )
    images = work.batch / chips
    networks = [_layers(work.student, chip, images, trained=True)]
    if work.teacher:
        networks.append(_layers(work.teacher, chip, images, trained=False))
    # The optimizer reads and writes the state, and what is between it and the network is written.
    update = 2 * (work.state + 4 * work.parameters) / chip.bytes_a_second
    return Estimate(
        work=work,
        chip=chip,
        chips=chips,
        compute=sum(compute for compute, _, _ in networks),
        memory=sum(memory for _, memory, _ in networks) + update,
        launches=sum(kernels for _, _, kernels in networks) * chip.launch * work.accumulate,
        all_reduce=ring(4 * work.parameters, chip, chips),
        batch_norm=2 * work.synchronised * work.accumulate * latency(chip, chips),
        input=_input(work, chip, chips),
    )


def divides(work: Workload, chips: int) -> bool:
    """Whether every chip gets as many images as the others."""
    return chips >= 1 and work.batch % (chips * work.accumulate) == 0


def hosts(chip: Chip, chips: int) -> int:
    """Hosts of so many chips."""
    return math.ceil(chips / chip.host)


def ring(size: float, chip: Chip, chips: int) -> float:
    """Seconds of an all-reduce of so many bytes over the slowest link of one ring."""
    link = chip.link if chips <= chip.joined else chip.network
    return 2 * (chips - 1) / chips * size / link


def latency(chip: Chip, chips: int) -> float:
    """Seconds of an all-reduce of almost nothing."""
    if chips == 1:
        return 0.0
    return LATENCY_JOINED if chips <= chip.joined else LATENCY_NETWORK


def _layers(network: Network, chip: Chip, images: float, trained: bool) -> tuple[float, float, int]:
    """Seconds of the layers bound by operations, of those bound by bytes; and kernels."""
    moves, sum_moves = (TRAINED_MOVES, TRAINED_SUM_MOVES) if trained else (MOVES, SUM_MOVES)
    compute = memory = 0.0
    kernels = 0
    for operations, outputs in network.layers:
        times = TRAINED_OPERATIONS if trained else 1
        busy = images * times * operations / chip.rate(network.dtype)
        moved = outputs * (moves if operations else sum_moves) * network.size
        moving = images * moved / chip.bytes_a_second
        compute += busy if busy > moving else 0.0
        memory += moving if busy <= moving else 0.0
        kernels += (TRAINED_KERNELS if trained else KERNELS) if operations else 0
    return compute, memory, kernels


def _input(work: Workload, chip: Chip, chips: int) -> float:
    if not work.decoded:
        return 0.0
    height, width, _ = work.shape
    return work.batch / hosts(chip, chips) * height * width / DECODED_PIXELS / chip.cores
