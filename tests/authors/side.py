"""What authors' code is called with, and what becomes of it; needs torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.authors.inputs import CLASSES, labels, outputs, thinned
from tests.torch_parity.inputs import draw


class Side:
    """What a network puts out, in PyTorch's layout."""

    def __init__(self, who: str, classes: int, learns: bool) -> None:
        def tensor(array: np.ndarray) -> Tensor:
            moved = array.transpose(0, 3, 1, 2).copy() if array.ndim == 4 else array
            return torch.tensor(moved, dtype=torch.float64, requires_grad=learns)

        self.all = {name: tensor(array) for name, array in outputs(who, classes).items()}

    def __getitem__(self, name: str) -> Tensor:
        return self.all[name]

    @property
    def stages(self) -> list[Tensor]:
        """The three maps."""
        return [self.all[f"stage{i}"] for i in (1, 2, 3)]

    @property
    def before(self) -> list[Tensor]:
        """The three maps before their ReLU."""
        return [self.all[f"before/stage{i}"] for i in (1, 2, 3)]


class Own:
    """Their modules with parameters: filled by name, and asked for slopes."""

    def __init__(self) -> None:
        self.parameters: dict[str, Tensor] = {}

    def __call__(self, module: Any, prefix: str = "") -> Any:
        """The module, trained, with drawn parameters; their names get the prefix."""
        for key, parameter in module.named_parameters():
            name = f"{prefix}{key}"
            with torch.no_grad():
                parameter.copy_(torch.from_numpy(draw(name, tuple(parameter.shape))))
            self.parameters[name] = parameter
        return module.train()


Run = Callable[[Side, Side, Tensor, Own], Tensor]
"""From what student and teacher put out, the labels and a place for modules to their loss."""


@dataclass(frozen=True)
class Theirs:
    """A loss in authors' code."""

    run: Run
    teacher: str = "teacher"
    """Which teacher of `inputs.WIDTHS`."""
    classes: int = CLASSES

    def measured(self) -> dict[str, np.ndarray]:
        """With what it was asked; value, slopes by what the student says, by their parameters."""
        torch.set_default_dtype(torch.float64)  # what is compared is the formula, not its rounding
        student = Side("student", self.classes, learns=True)
        teacher = Side(self.teacher, self.classes, learns=False)
        own = Own()
        value = self.run(student, teacher, torch.from_numpy(labels(self.classes)), own)
        value.sum().backward()
        slopes = {
            f"student/{name}": _channels_last(tensor.grad.numpy())
            for name, tensor in student.all.items()
            if tensor.grad is not None
        }
        slopes |= {
            f"own/{name}": parameter.grad.numpy()
            for name, parameter in own.parameters.items()
            if parameter.grad is not None
        }
        return {
            "teacher": np.array(self.teacher),
            "classes": np.array(self.classes),
            "value": value.detach().numpy().reshape(()),
            **{name: thinned(slope) for name, slope in slopes.items()},
        }


def _channels_last(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def without_gpu() -> None:
    """Let code that asks for a GPU stay where it is."""

    def stay(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self

    torch.Tensor.cuda = nn.Module.cuda = stay
    move = nn.Module.to
    nn.Module.to = lambda self, *args, **kwargs: (
        self if args == ("cuda",) else move(self, *args, **kwargs)
    )
