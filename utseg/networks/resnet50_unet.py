"""U-Net decoder on a ResNet-50, the ResNet baseline of the UTNet publication: a preset of `resnet50_utnet` without attention."""

from typing import ClassVar

from utseg.networks.network import Family
from utseg.networks.resnet50_utnet import ResNet50UTNet


class ResNet50UNet(ResNet50UTNet):
    """U-Net on a weight-standardised, group-normed ResNet-50 encoder (Gao et al. 2021)."""

    family: ClassVar[Family] = "convolutional"
    fixed: ClassVar = {
        "attention_blocks": (),
        "transformer_blocks": (1,),
        "attention_heads": (1,),
        "reduce_size": 8,
        "projection": "interp",
        "relative_position": "none",
        "attention_dropout": 0.0,
    }
