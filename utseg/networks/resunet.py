"""Pre-activation residual U-Net, UTNet's own baseline: a preset of `utnet` without attention."""

from typing import ClassVar

from utseg.networks.network import Family
from utseg.networks.utnet import UTNet


class ResUNet(UTNet):
    """U-Net of pre-activation residual blocks: UTNet without attention (Gao, Zhou, Metaxas, 2021)."""

    family: ClassVar[Family] = "convolutional"
    fixed: ClassVar = {
        "block_list": (),
        "num_blocks": (1,),
        "num_heads": (1,),
        "attention_in": "both",
        "reduce_size": 8,
        "projection": "interp",
        "relative_position": "none",
        "attention_dropout": 0.0,
    }
