"""The networks. A model is a frozen dataclass with a pure method; the unions are the registry."""

from kdjax.models.base import VisionModel, infer
from kdjax.models.convnext import CONVNEXTS, ConvNeXt
from kdjax.models.dropout import Draws, learn
from kdjax.models.efficientnet import EFFICIENTNETS, EfficientNet
from kdjax.models.ensemble import Ensemble
from kdjax.models.mobilenet_v1 import MOBILENETS_V1, MobileNetV1
from kdjax.models.mobilenet_v2 import MOBILENETS_V2, MobileNetV2
from kdjax.models.mobilenet_v3 import MOBILENETS_V3, MobileNetV3
from kdjax.models.network import Network
from kdjax.models.regnet import REGNETS, RegNet
from kdjax.models.resnet import RESNETS, ResNet
from kdjax.models.reused_classifier import ReusedClassifier
from kdjax.models.row_lstm import ROW_LSTMS, RowLSTM
from kdjax.models.shufflenet_v1 import SHUFFLENETS_V1, ShuffleNetV1
from kdjax.models.shufflenet_v2 import SHUFFLENETS_V2, ShuffleNetV2
from kdjax.models.small_cnn import SMALL_CNNS, SmallCNN
from kdjax.models.vgg import VGG, VGGS
from kdjax.models.vit import VITS, ViT
from kdjax.models.wide_resnet import WIDE_RESNETS, WideResNet

Model = Network | Ensemble | ReusedClassifier
"""Every network a config file can name."""

NAMED: dict[str, Model] = {
    **SMALL_CNNS,
    **RESNETS,
    **WIDE_RESNETS,
    **VGGS,
    **MOBILENETS_V1,
    **MOBILENETS_V2,
    **MOBILENETS_V3,
    **EFFICIENTNETS,
    **SHUFFLENETS_V1,
    **SHUFFLENETS_V2,
    **REGNETS,
    **CONVNEXTS,
    **VITS,
    **ROW_LSTMS,
}
"""The names the literature uses, with ten classes or, for ImageNet's networks, a thousand.

Change fields with `.clone(...)`.
"""

__all__ = [
    "NAMED",
    "VGG",
    "ConvNeXt",
    "Draws",
    "EfficientNet",
    "Ensemble",
    "MobileNetV1",
    "MobileNetV2",
    "MobileNetV3",
    "Model",
    "Network",
    "RegNet",
    "ResNet",
    "ReusedClassifier",
    "RowLSTM",
    "ShuffleNetV1",
    "ShuffleNetV2",
    "SmallCNN",
    "ViT",
    "VisionModel",
    "WideResNet",
    "infer",
    "learn",
]
