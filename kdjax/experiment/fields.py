"""An experiment as one frozen value. What it must obey is in `kdjax.experiment.rules`."""

from dataclasses import dataclass, field
from typing import Literal

from kdjax.data.augment import Augmentation
from kdjax.data.drawing import Sampling
from kdjax.experiment.metrics import Measure
from kdjax.experiment.objective import Term
from kdjax.experiment.optim import SGD, Optimizer
from kdjax.experiment.phases import Phase
from kdjax.experiment.schedules import Cosine, Schedule
from kdjax.losses import CrossEntropy, SoftTarget
from kdjax.models import Model, SmallCNN
from kdjax.students.derive import Derive

UNKNOWN = "unknown"
"""Name of the data of a network that was imported without any."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is learnt from."""

    name: str = "digits"
    """`digits`; `tfds:NAME`, any prepared image classification set of TensorFlow Datasets;
    `folder:DIR` with `train/<class>/*.jpg` and so on; `npz:FILE` with `train_images` and so on."""
    directory: str | None = None
    """Where TFDS keeps its data sets, and where DIR and FILE lie; None: `TFDS_DATA_DIR` or
    `~/tensorflow_datasets`, and the current directory."""
    train: str = "train"
    """Split trained on, in TFDS notation: `train[:90%]`."""
    validation: str = "validation"
    """Split that checkpoints are selected on: `train[90%:]`."""
    test: str = "test"
    """Split read once, at the end."""
    image_size: tuple[int, int] | None = None
    """Height and width that images are scaled to cover, the middle being cut out; None: they have
    one size."""
    grey: bool = False
    """Make the images grey, of one channel."""
    broken: Literal["fail", "skip"] = "fail"
    """What an image does that cannot be read: end the job, or be named, counted and left out."""
    augment: tuple[Augmentation, ...] = ()
    """Random views for training, applied on the device in this order."""
    teacher_augment: tuple[Augmentation, ...] | None = None
    """Random views for the teacher, drawn apart from the student's; None: it sees the same.
    Where the student sees mixtures, the teacher's answers to both images are mixed."""
    sampling: Sampling = "instance"
    """Which examples an epoch has: each once (`instance`), or as many draws with replacement, from
    classes in proportion to the square roots of their sizes (`square_root`) or equally often
    (`class`). What is drawn again is another view."""
    views: int = 1
    """Views of each example that follow each other in a batch; an epoch has that many of all."""
    cycle: int | None = None
    """See only this many different views of each example, over and over; None: ever new ones."""


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How a network is fitted."""

    epochs: float = 30.0
    """Passes over the training split, or as many draws as those have examples."""
    batch_size: int = 128
    """Examples in the global batch, whatever the number of devices."""
    accumulate: int = 1
    """Cut each global batch into this many slices, one after the other, to save memory. Batch norm
    and losses of the whole batch see a slice at a time; running statistics are updated once a step,
    by the mean over the slices."""
    optimizer: Optimizer = field(default_factory=SGD)
    """How gradients become updates."""
    schedule: Schedule = field(default_factory=Cosine)
    """Learning rate over time."""
    phases: tuple[Phase, ...] = ()
    """Parts of the fit, one after the other, that train different things or by different losses;
    none: one phase that trains everything."""
    clip_norm: float | None = None
    """Scale the network's gradient, and the adapters', down to this norm; None: never."""
    ema_decay: float | None = None
    """Keep an exponential moving average of the weights with this decay per step; None: do not."""
    ema_teacher: bool = False
    """Let the moving average of the weights teach, where no other network does (mean teacher)."""
    balance: int | None = None
    """Every so many steps, scale the terms so that their weights are ratios of gradient norms on
    the network, the first term's being the measure; None: never."""
    eval_every: float = 1.0
    """Epochs between validations; a checkpoint follows each. The end is always validated."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """The teacher's answers on disk, instead of the teacher in every step."""

    directory: str | None = None
    """Where they are kept; what is missing is asked for and added. None: always ask."""
    top_k: int | None = None
    """Keep this many largest logits of each answer, and the mass of the rest; None: all logits."""
    embedding: bool = False
    """Keep the teacher's embeddings too."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """The big network: trained here, or taken from a finished run."""

    run: str | None = None
    """A finished run directory to take the teacher from, instead of `model`, `fit`, `losses`."""
    checkpoint: str = "best"
    """Which of its checkpoints teaches: `best`, `latest` or a step."""
    cache: Cache = field(default_factory=Cache)
    """Its answers on disk (`kdjax cache`)."""
    model: Model = field(default_factory=SmallCNN)
    """The network."""
    fit: Fit = field(default_factory=Fit)
    """How it is trained."""
    losses: tuple[Term, ...] = (Term(CrossEntropy()),)
    """Its objective."""


@dataclass(frozen=True, kw_only=True)
class Student:
    """The small network and what it learns from."""

    model: Model | None = None
    """The network; None: cut from the teacher as `derive` says."""
    derive: Derive = field(default_factory=Derive)
    """How the student is made from the teacher where `model` is None."""
    reuse_classifier: bool = False
    """Answer with the teacher's classifier over a projector, as SimKD does."""
    fit: Fit = field(default_factory=Fit)
    """How it is trained; the baseline trains the same way."""
    losses: tuple[Term, ...] = (Term(CrossEntropy(), 0.1), Term(SoftTarget(), 0.9))
    """Its objective: any weighted list."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How several processes find each other; all None: read from the environment."""

    coordinator: str | None = None
    """`host:port` of process 0."""
    count: int | None = None
    """Number of processes."""
    index: int | None = None
    """Which of them this is, from 0."""
    init_timeout: int = 600
    """Seconds to wait for all processes at the start."""
    heartbeat_timeout: int = 60
    """Seconds after which a silent process counts as dead."""
    shutdown_timeout: int = 60
    """Seconds to wait for the others at the end."""


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where and how it runs: nothing here changes a result."""

    backend: Literal["pmap", "shard_map"] = "pmap"
    """How the step is spread over the devices."""
    devices: int | None = None
    """Use this many devices; None: all of them."""
    eval_batch_size: int = 512
    """Examples in a global evaluation batch, rounded up to a multiple of the devices."""
    resident: bool | None = None
    """Keep all training images on every device; None: on accelerators, where they are few."""
    steps_per_dispatch: int | None = None
    """Steps the host starts at once; None: 16 on accelerators with resident images, else 1."""
    log_every: int = 20
    """Steps between two lines of `metrics.jsonl`."""
    keep_latest: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints kept for their validation accuracy, beside the newest."""
    tensorboard: bool = False
    """Write TensorBoard events too (extra `tensorboard`)."""
    compilation_cache: bool = True
    """Keep compiled programs in `~/.cache/kdjax/xla` for the next start."""
    processes: Processes = field(default_factory=Processes)
    """Several processes."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What others report for this experiment: top-1 accuracies in per cent, as they are printed."""

    student: float
    """Of the distilled student."""
    rule: Literal["last", "best"]
    """Of which epoch: the last, or the best on the TEST set. We never select on the test set, so
    what stands beside either is our last epoch."""
    source: str
    """Where it is printed."""
    teacher: float | None = None
    """Of the teacher; None: not reported."""
    baseline: float | None = None
    """Of the student trained alone; None: not reported."""


ASSISTANTS = tuple(f"assistant{i}" for i in range(1, 10))
"""Roles of the networks between teacher and student, as many as there may be."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Teacher, student, data: everything one job needs."""

    name: str
    """Shown on the report."""
    seed: int = 0
    """Names every random choice of the job."""
    data: Data = field(default_factory=Data)
    """What is learnt from."""
    teacher: Teacher = field(default_factory=Teacher)
    """The big network."""
    student: Student = field(default_factory=Student)
    """The small network."""
    assistants: tuple[Student, ...] = ()
    """Networks between the two: each learns from the one before it, the student from the last."""
    baseline: bool = True
    """Also train the student from fresh weights without a teacher, to see what was gained."""
    metrics: tuple[Measure, ...] = ()
    """What each network is measured by beside top-1 and its like; decides nothing."""
    published: Published | None = None
    """What others report for it, shown beside our result; decides nothing."""
    runtime: Runtime = field(default_factory=Runtime)
    """Where and how it runs."""


@dataclass(frozen=True, kw_only=True)
class TeacherReference:
    """A run as another remembers it, its teacher as a rule: by place and by content."""

    run: str
    """Its run directory; a teacher's is relative to its student's where both share a parent."""
    step: int
    """The checkpoint."""
    digest: str
    """Of its weights."""


@dataclass(frozen=True, kw_only=True)
class Copied(TeacherReference):
    """A run that weights were copied from, with no training since."""

    member: int | None = None
    """Which member of its ensemble; None: all of it."""


@dataclass(frozen=True, kw_only=True)
class Imported:
    """Where a network's weights come from, if not from training."""

    file: str
    """Name of the file."""
    sha256: str
    """Of its content."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides the numbers of one training run; the content of `config.json`."""

    role: str
    """`teacher`, `assistant1`, `assistant2`, …, `baseline` or `student`."""
    seed: int
    data: Data
    model: Model
    losses: tuple[Term, ...]
    fit: Fit
    teacher: TeacherReference | None = None
    cache: Cache = field(default_factory=Cache)
    """The teacher's answers on disk."""
    metrics: tuple[Measure, ...] = ()
    """What it is measured by, too; no weight depends on it, so it may change."""
    inherit: Derive | None = None
    """Start from the teacher's weights, cut down to this model."""
    imported: Imported | None = None
    """The weights were taken from a file; nothing was trained."""
    copied: tuple[Copied, ...] = ()
    """The weights were taken from these runs, joined or split; nothing was trained."""
