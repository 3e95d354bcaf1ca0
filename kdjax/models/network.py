"""The families of networks; a family of ours is one name in the union."""

from kdjax.models.base import VisionModel
from kdjax.models.convnext import ConvNeXt
from kdjax.models.efficientnet import EfficientNet
from kdjax.models.mobilenet_v1 import MobileNetV1
from kdjax.models.mobilenet_v2 import MobileNetV2
from kdjax.models.mobilenet_v3 import MobileNetV3
from kdjax.models.regnet import RegNet
from kdjax.models.resnet import ResNet
from kdjax.models.row_lstm import RowLSTM
from kdjax.models.shufflenet_v1 import ShuffleNetV1
from kdjax.models.shufflenet_v2 import ShuffleNetV2
from kdjax.models.small_cnn import SmallCNN
from kdjax.models.vgg import VGG
from kdjax.models.vit import ViT
from kdjax.models.wide_resnet import WideResNet

Network = (
    SmallCNN
    | ResNet
    | WideResNet
    | VGG
    | MobileNetV1
    | MobileNetV2
    | MobileNetV3
    | EfficientNet
    | ShuffleNetV1
    | ShuffleNetV2
    | RegNet
    | ConvNeXt
    | ViT
    | RowLSTM
    | VisionModel
)
"""Every single network; the last stands for those that are not ours."""
