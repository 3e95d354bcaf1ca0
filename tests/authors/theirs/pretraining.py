"""The methods of two stages in RepDistiller: ten steps of a student, five in each stage.

Stages, loops and modules are theirs, `helper.pretrain.init` and `helper.loops.train_distill`; what
`train_student.py` does between them is done here.
"""

from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn, optim

from tests.authors.inputs import CLASSES, EXAMPLES, MEAN, STD, images, labels, thinned
from tests.authors.side import Own
from tests.checkouts import from_checkout
from tests.torch_parity.inputs import draw

REPOSITORY = "HobbitLong/RepDistiller"

zoo = from_checkout(REPOSITORY, "distiller_zoo")
util = from_checkout(REPOSITORY, "models.util")
models = from_checkout(REPOSITORY, "models")
pretrain = from_checkout(REPOSITORY, "helper.pretrain")
loops = from_checkout(REPOSITORY, "helper.loops")

STEPS = 5
"""Of each stage: one batch of all images is an epoch."""


class Silent:
    """In place of their logger."""

    def log_value(self, name: str, value: Any, epoch: int) -> None:
        """Nothing."""


@dataclass(frozen=True)
class Trajectory:
    """A student that is taught by a teacher in two stages."""

    distill: str
    teacher: str
    student: str = "resnet8"

    def measured(self) -> dict[str, np.ndarray]:
        """What the student has become after each stage, and what helps it."""
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # so that their loops leave images as they are
        teacher, student = (_network(name).eval() for name in (self.teacher, self.student))
        opt = Namespace(distill=self.distill, model_s=self.student, init_epochs=STEPS, beta=0.0)
        opt.__dict__.update(learning_rate=0.05, momentum=0.9, weight_decay=5e-4)
        opt.__dict__.update(gamma=1.0, alpha=0.0, print_freq=100)
        with torch.no_grad():
            feat_s, feat_t = (net(_images(), is_feat=True)[0] for net in (student, teacher))
        stages: Stages = getattr(self, f"_{self.distill}")(student, feat_s, feat_t, opt)
        data = [(_images(), torch.from_numpy(labels()), torch.arange(EXAMPLES))]

        first = nn.ModuleList(stages.first)
        pretrain.init(student, teacher, first, stages.objective, data, Silent(), opt)
        found = _state("first", student, stages.own)
        modules = nn.ModuleList([student, *stages.second, teacher])
        trained = nn.ModuleList([student, *stages.trained])
        optimizer = optim.SGD(trained.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        criteria = [nn.CrossEntropyLoss(), zoo.DistillKL(4), stages.criterion]
        for epoch in range(1, STEPS + 1):
            loops.train_distill(epoch, data, modules, criteria, optimizer, opt)
        return found | _state("second", student, stages.own)

    def _abound(self, student: Any, feat_s: Any, feat_t: Any, opt: Namespace) -> "Stages":
        shapes = ([f.shape for f in maps[1:-1]] for maps in (feat_s, feat_t))
        connector, loss = Own()(util.Connector(*shapes)), zoo.ABLoss(3)
        first = [connector, student.get_feat_modules()]
        return Stages(first, loss, loss, second=[connector], own={"": connector})

    def _fsp(self, student: Any, feat_s: Any, feat_t: Any, opt: Namespace) -> "Stages":
        loss = zoo.FSP(*([f.shape for f in maps[:-1]] for maps in (feat_s, feat_t)))
        return Stages([student.get_feat_modules()], loss, loss)

    def _factor(self, student: Any, feat_s: Any, feat_t: Any, opt: Namespace) -> "Stages":
        f_s, f_t = feat_s[-2].shape, feat_t[-2].shape
        own = {"paraphraser.": util.Paraphraser(f_t), "translator.": util.Translator(f_s, f_t)}
        paraphraser, translator = (Own()(module, prefix) for prefix, module in own.items())
        opt.beta = 200.0
        second = [translator, paraphraser]
        return Stages([paraphraser], nn.MSELoss(), zoo.FactorTransfer(), second, [translator], own)


@dataclass(frozen=True)
class Stages:
    """What `train_student.py` puts together for a method."""

    first: list[Any]
    """Modules that are trained in the first stage."""
    objective: Any
    """Of the first stage."""
    criterion: Any
    """Of the second stage, with `opt.beta`."""
    second: list[Any] = field(default_factory=list)
    """Modules between student and teacher in the second stage."""
    trained: list[Any] = field(default_factory=list)
    """Those that are trained then, beside the student."""
    own: dict[str, Any] = field(default_factory=dict)
    """Modules of the method, and what their parameters' names begin with."""


def _images() -> Tensor:
    pixels = (images().astype(np.float64) / 255 - np.array(MEAN)) / np.array(STD)
    return torch.tensor(pixels.transpose(0, 3, 1, 2).copy())


def _network(name: str) -> Any:
    network = getattr(models, name)(num_classes=CLASSES)
    state = network.state_dict()
    filled = {k: draw(k, tuple(v.shape)) for k, v in state.items() if v.is_floating_point()}
    network.load_state_dict({k: torch.tensor(v) for k, v in filled.items()}, strict=False)
    return network


def _state(stage: str, student: Any, own: dict[str, Any]) -> dict[str, np.ndarray]:
    found = {f"student/{k}": v for k, v in student.state_dict().items() if v.is_floating_point()}
    for prefix, module in own.items():
        found |= {f"own/{prefix}{k}": v for k, v in module.named_parameters()}
    return {f"{stage}/{k}": thinned(v.detach().numpy()) for k, v in found.items()}


LOSSES = {
    "ab": Trajectory("abound", "resnet8x4"),
    "fsp": Trajectory("fsp", "resnet14"),
    "ft": Trajectory("factor", "resnet8x4"),
}
