"""The networks. A model is a frozen dataclass with a pure method; the union is the registry."""

from kdjax.models.base import VisionModel, infer
from kdjax.models.resnet import RESNETS, ResNet
from kdjax.models.small_cnn import SmallCNN
from kdjax.models.vgg import VGG, VGGS
from kdjax.models.wide_resnet import WIDE_RESNETS, WideResNet

Model = SmallCNN | ResNet | WideResNet | VGG
"""Every network a config file or the command line can name."""

NAMED: dict[str, Model] = {
    "small_cnn": SmallCNN(),
    "tiny_cnn": SmallCNN(widths=(4, 8), hidden=32),
    **RESNETS,
    **WIDE_RESNETS,
    **VGGS,
}
"""The names the literature uses; those for CIFAR with ten classes, change fields with `.clone`."""

__all__ = ["NAMED", "VGG", "Model", "ResNet", "SmallCNN", "VisionModel", "WideResNet", "infer"]
