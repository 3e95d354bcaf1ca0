"""The networks. A model is a frozen dataclass with a pure method; the union is the registry."""

from kdjax.models.base import VisionModel, infer
from kdjax.models.resnet import ResNet
from kdjax.models.small_cnn import SmallCNN

Model = SmallCNN | ResNet
"""Every network a config file or the command line can name."""


def _resnet(n: int, widths: tuple[int, ...] = (16, 16, 32, 64)) -> ResNet:
    return ResNet(blocks=(n, n, n), widths=widths)


NAMED: dict[str, Model] = {
    "small_cnn": SmallCNN(),
    "tiny_cnn": SmallCNN(widths=(4, 8), hidden=32),
    "resnet8": _resnet(1),
    "resnet14": _resnet(2),
    "resnet20": _resnet(3),
    "resnet32": _resnet(5),
    "resnet44": _resnet(7),
    "resnet56": _resnet(9),
    "resnet110": _resnet(18),
    "resnet8x4": _resnet(1, (32, 64, 128, 256)),
    "resnet32x4": _resnet(5, (32, 64, 128, 256)),
}
"""The names the literature uses, with ten classes; change fields with `.clone(...)`."""

__all__ = ["NAMED", "Model", "ResNet", "SmallCNN", "VisionModel", "infer"]
