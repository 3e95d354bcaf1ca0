"""Our networks as PyTorch users write them, their layers named as in published files.

`network` builds the counterpart of one of ours; a family it does not know cannot be compared.
"""

import functools
from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from kdjax.models import MobileNetV2, Model, ResNet, SmallCNN, WideResNet
from kdjax.models.base import scaled_size
from kdjax.models.summary import Shape

relu = functools.partial(functional.relu, inplace=True)


def network(model: Model, shape: Shape) -> nn.Module:
    """An untrained counterpart for images of `shape`; ValueError where there is none."""
    if getattr(model, "dropout", 0):
        raise ValueError("--against torch: dropout is not written for PyTorch here; set it to 0.")
    if isinstance(model, SmallCNN):
        return Small(model, shape)
    if isinstance(model, WideResNet):
        return Wide(model, shape)
    if isinstance(model, ResNet) and model.shortcut == "project":
        return Residual(model, shape)
    if isinstance(model, MobileNetV2):
        return Mobile(model, shape)
    raise ValueError(
        f"--against torch: {type(model).__name__} is not written for PyTorch here; SmallCNN, "
        'WideResNet, ResNet (shortcut="project") and MobileNetV2 are.'
    )


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """With half the kernel for padding and no bias."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)


class Small(nn.Module):
    """Of `SmallCNN`."""

    def __init__(self, model: SmallCNN, shape: Shape) -> None:
        super().__init__()
        height, width, inputs = shape
        self.stages = range(1, len(model.widths) + 1)
        for i, outputs in zip(self.stages, model.widths, strict=True):
            self.add_module(f"conv{i}", conv(inputs, outputs, 3))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
            height, width, inputs = height // 2, width // 2, outputs
        self.dense = nn.Linear(height * width * inputs, model.hidden)
        self.classifier = nn.Linear(model.hidden, model.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        for i in self.stages:
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
            x = functional.max_pool2d(relu(x), 2)
        return self.classifier(relu(self.dense(x.flatten(1))))


class WideBlock(nn.Module):
    """Batch norm and ReLU come before each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs, 3)
        changes = stride != 1 or inputs != outputs
        self.convShortcut = conv(inputs, outputs, 1, stride) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """The sum on the residual stream."""
        active = relu(self.bn1(x))
        y = self.conv2(relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideStage(nn.Module):
    """Blocks, of which the first may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, count: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(inputs, outputs, stride)
        rest = (WideBlock(outputs, outputs, 1) for _ in range(count - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """The sum after the last block."""
        return self.layer(x)


class Wide(nn.Module):
    """Of `WideResNet`, with RepDistiller's names."""

    def __init__(self, model: WideResNet, shape: Shape) -> None:
        super().__init__()
        inputs = model.widths[0]
        self.conv1 = conv(shape[-1], inputs, 3)
        self.stages = range(1, len(model.blocks) + 1)
        for i, count, outputs in zip(self.stages, model.blocks, model.widths[1:], strict=True):
            self.add_module(f"block{i}", WideStage(inputs, outputs, count, 1 if i == 1 else 2))
            inputs = outputs
        self.bn1, self.fc = nn.BatchNorm2d(inputs), nn.Linear(inputs, model.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.conv1(x)
        for i in self.stages:
            x = self.get_submodule(f"block{i}")(x)
        return self.fc(relu(self.bn1(x)).mean((2, 3)))


class ResidualBlock(nn.Module):
    """Two convolutions, or three with a bottleneck, and a shortcut."""

    def __init__(self, model: ResNet, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = scaled_size(outputs, model.inner)
        self.conv1, self.bn1 = conv(inputs, inner, 3, stride), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = conv(inner, outputs, 3), nn.BatchNorm2d(outputs)
        self.bottleneck = model.block == "bottleneck"
        if self.bottleneck:
            self.conv1 = conv(inputs, inner, 1)
            self.conv2, self.bn2 = conv(inner, inner, 3, stride), nn.BatchNorm2d(inner)
            self.conv3, self.bn3 = conv(inner, outputs, 1), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            projection = conv(inputs, outputs, 1, stride)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """After the last ReLU."""
        y = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(relu(y)))
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class Residual(nn.Module):
    """Of `ResNet`, with torchvision's names."""

    def __init__(self, model: ResNet, shape: Shape) -> None:
        super().__init__()
        inputs, small = model.widths[0], model.stem == "cifar"
        self.conv1 = conv(shape[-1], inputs, 3) if small else conv(shape[-1], inputs, 7, 2)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.stages = range(1, len(model.blocks) + 1)
        for i, count, outputs in zip(self.stages, model.blocks, model.widths[1:], strict=True):
            blocks = [ResidualBlock(model, inputs, outputs, 1 if i == 1 else 2)]
            blocks += [ResidualBlock(model, outputs, outputs, 1) for _ in range(count - 1)]
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
            inputs = outputs
        self.fc = nn.Linear(inputs, model.num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.pool(relu(self.bn1(self.conv1(x))))
        for i in self.stages:
            x = self.get_submodule(f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class MobileBlock(nn.Module):
    """The inverted residual."""

    def __init__(
        self,
        inputs: int,
        expansion: int,
        outputs: int,
        stride: int,
        active: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        inner = (expansion or 1) * inputs
        expand = nn.Sequential(conv(inputs, inner, 1), nn.BatchNorm2d(inner), active())
        depthwise = conv(inner, inner, 3, stride, groups=inner)
        self.conv = nn.Sequential(
            *([expand] if expansion else []),
            nn.Sequential(depthwise, nn.BatchNorm2d(inner), active()),
            conv(inner, outputs, 1),
            nn.BatchNorm2d(outputs),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Without an activation at its end."""
        return x + self.conv(x) if self.residual else self.conv(x)


class Mobile(nn.Module):
    """Of `MobileNetV2`, with torchvision's names."""

    def __init__(self, model: MobileNetV2, shape: Shape) -> None:
        super().__init__()
        kind = nn.ReLU6 if model.activation == "relu6" else nn.ReLU
        active = functools.partial(kind, inplace=True)
        inputs = model.widths[0]
        stem = conv(shape[-1], inputs, 3, model.strides[0])
        layers: list[nn.Module] = [nn.Sequential(stem, nn.BatchNorm2d(inputs), active())]
        rows = zip(model.blocks, model.widths[1:], model.strides[1:], model.expansions, strict=True)
        for count, outputs, stride, expansion in rows:
            for j in range(count):
                step = stride if j == 0 else 1
                layers.append(MobileBlock(inputs, expansion, outputs, step, active))
                inputs = outputs
        head = conv(inputs, model.head, 1)
        layers.append(nn.Sequential(head, nn.BatchNorm2d(model.head), active()))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(model.head, model.num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.classifier(self.features(x).mean((2, 3)))
