"""PyTorch's side of a comparison: the same networks, loss and optimizer, written plainly.

The step minimises `CE + KL(teacher || student) · T²` by SGD with momentum and weight decay, on
uint8 images that are normalised inside, in one of the `FORMS` PyTorch users run: eager,
channels_last (NHWC memory, usually its fastest on a CPU) and compiled (needs a C++ compiler).
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

Form = Literal["eager", "channels_last", "compiled"]
FORMS: tuple[Form, ...] = ("eager", "channels_last", "compiled")
TEMPERATURE = 4.0


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class SmallCNN(nn.Module):
    """`kdjax.models.SmallCNN`."""

    def __init__(
        self, widths: tuple[int, ...], hidden: int, classes: int, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        height, width, channels = shape
        layers: list[nn.Module] = []
        for outputs in widths:
            layers += [conv(channels, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            height, width, channels = height // 2, width // 2, outputs
        layers += [nn.Flatten(), nn.Linear(height * width * channels, hidden), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class Block(nn.Module):
    """A residual block with batch norm and ReLU before each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1, self.conv2 = conv(inputs, outputs, 3, stride), conv(outputs, outputs, 3)
        changes = stride != 1 or inputs != outputs
        self.shortcut = conv(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        active = functional.relu(self.norm1(x))
        y = self.conv2(functional.relu(self.norm2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """`kdjax.models.WideResNet`."""

    def __init__(self, blocks: tuple[int, ...], widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(3, widths[0], 3)]
        inputs = widths[0]
        for i, (count, outputs) in enumerate(zip(blocks, widths[1:], strict=True)):
            for j in range(count):
                layers.append(Block(inputs, outputs, 2 if i and j == 0 else 1))
                inputs = outputs
        layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def make_step(
    teacher: nn.Module, student: nn.Module, images: np.ndarray, labels: np.ndarray, form: Form
) -> Callable[[], None]:
    """One training step on always the same batch, images `[b, H, W, C]`."""
    memory = torch.contiguous_format if form == "eager" else torch.channels_last
    teacher, student = (net.to(memory_format=memory) for net in (teacher.eval(), student.train()))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).contiguous(memory_format=memory)
    y = torch.from_numpy(labels.astype(np.int64))
    optimizer = torch.optim.SGD(student.parameters(), 1e-9, momentum=0.9, weight_decay=5e-4)

    def loss() -> torch.Tensor:
        pixels = (x.float() / 255 - 0.5) / 0.5
        with torch.no_grad():
            target = functional.log_softmax(teacher(pixels) / TEMPERATURE, 1)
        logits = student(pixels)
        softened = functional.log_softmax(logits / TEMPERATURE, 1)
        soft = functional.kl_div(softened, target, reduction="batchmean", log_target=True)
        return functional.cross_entropy(logits, y) + TEMPERATURE**2 * soft

    forward = torch.compile(loss) if form == "compiled" else loss

    def step() -> None:
        optimizer.zero_grad()
        forward().backward()
        optimizer.step()

    return step
