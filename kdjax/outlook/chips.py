"""Accelerators as their makers describe them, and the machines that clouds put them in."""

from dataclasses import dataclass

FLOPS_SHARE, BANDWIDTH_SHARE = 0.8, 0.9
"""What large products and copies sustain of the peaks: 790 TFLOP/s and 4.3 TB/s of an H200."""
LAUNCH = 2.5e-6
"""Seconds a GPU takes at least for a kernel, however small."""


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator, and its share of the machine it sits in. Rates are a second, sizes bytes."""

    name: str
    bfloat16: float
    """Peak operations, dense."""
    float32: float
    """Peak operations of float32 as JAX computes it by default: TF32 on GPUs, bfloat16 on TPUs."""
    memory: float
    bandwidth: float
    """Peak bytes to and from its memory."""
    link: float
    """Bytes one way to the other chips of its node or slice."""
    joined: int
    """Chips that these links join."""
    network: float
    """Bytes one way beyond them, its share of its host's network."""
    host: int
    """Chips a host."""
    cores: int
    """Cores of a host: half its virtual processors."""
    launch: float
    """Seconds of the smallest kernel."""
    flops_share: float = FLOPS_SHARE
    bandwidth_share: float = BANDWIDTH_SHARE
    source: str
    """Where the numbers are printed."""

    def rate(self, dtype: str) -> float:
        """Operations that large products sustain."""
        return self.flops_share * (self.bfloat16 if dtype == "bfloat16" else self.float32)

    @property
    def bytes_a_second(self) -> float:
        """What large copies sustain."""
        return self.bandwidth_share * self.bandwidth


MACHINES = "cloud.google.com/compute/docs/accelerator-optimized-machines"

TABLE = (
    Chip(
        name="H100",
        bfloat16=989e12,
        float32=494e12,
        memory=80e9,
        bandwidth=3.35e12,
        link=450e9,
        joined=8,
        network=25e9,
        host=8,
        cores=104,
        launch=LAUNCH,
        source=f"NVIDIA H100 data sheet, SXM, without sparsity; a3-megagpu-8g, {MACHINES}",
    ),
    Chip(
        name="H200",
        bfloat16=989e12,
        float32=494e12,
        memory=141e9,
        bandwidth=4.8e12,
        link=450e9,
        joined=8,
        network=50e9,
        host=8,
        cores=112,
        launch=LAUNCH,
        source=f"NVIDIA H200 data sheet, SXM, without sparsity; a3-ultragpu-8g, {MACHINES}",
    ),
    Chip(
        name="A100",
        bfloat16=312e12,
        float32=156e12,
        memory=80e9,
        bandwidth=2.039e12,
        link=300e9,
        joined=8,
        network=12.5e9 / 8,
        host=8,
        cores=48,
        launch=LAUNCH,
        source=f"NVIDIA A100 80 GB data sheet, SXM; a2-ultragpu-8g, {MACHINES}",
    ),
    Chip(
        name="L4",
        bfloat16=121e12,
        float32=60e12,
        memory=24e9,
        bandwidth=300e9,
        link=32e9,
        joined=8,
        network=12.5e9 / 8,
        host=8,
        cores=48,
        launch=LAUNCH,
        source=f"NVIDIA L4 data sheet, without sparsity, PCIe 4 x16; g2-standard-96, {MACHINES}",
    ),
    Chip(
        name="v5e",
        bfloat16=197e12,
        float32=197e12,
        memory=16e9,
        bandwidth=819e9,
        link=200e9,
        joined=256,
        network=3.125e9,
        host=8,
        cores=112,
        launch=0.0,
        source="cloud.google.com/tpu/docs/v5e; ct5lp-hightpu-8t",
    ),
    Chip(
        name="v5p",
        bfloat16=459e12,
        float32=459e12,
        memory=95e9,
        bandwidth=2.765e12,
        link=600e9,
        joined=6144,
        network=6.25e9,
        host=4,
        cores=104,
        launch=0.0,
        source="cloud.google.com/tpu/docs/v5p",
    ),
    Chip(
        name="v6e",
        bfloat16=918e12,
        float32=918e12,
        memory=32e9,
        bandwidth=1.6e12,
        link=400e9,
        joined=256,
        network=12.5e9,
        host=8,
        cores=90,
        launch=0.0,
        source="cloud.google.com/tpu/docs/v6e; ct6e-standard-8t",
    ),
)

CHIPS = {chip.name: chip for chip in TABLE}


def chip_named(name: str) -> Chip:
    """The chip; ValueError with those there are. Upper and lower case are alike."""
    for known, chip in CHIPS.items():
        if name.lower() == known.lower():
            return chip
    raise ValueError(f"--chip: {name!r} is not in the table; it has {', '.join(CHIPS)}.")
