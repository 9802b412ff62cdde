"""Pre-activation residual U-Net, UTNet's own baseline: a preset of `utnet` without attention."""

from typing import ClassVar

from utseg.networks.network import Family
from utseg.networks.utnet import UTNet


class ResUNet(UTNet):
    """U-Net of pre-activation residual blocks: UTNet without attention (Gao, Zhou, Metaxas, 2021)."""

    family: ClassVar[Family] = "convolutional"

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        base_channels: int = 32,
        levels: int = 4,
        downsampling: str = "maxpool",
        bottleneck: bool = False,
        aux_loss: bool = True,
    ) -> None:
        """Settings as UTNet's. Raises SettingError."""
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            base_channels=base_channels,
            levels=levels,
            block_list=(),
            num_blocks=(1,),
            num_heads=(1,),
            downsampling=downsampling,
            bottleneck=bottleneck,
            aux_loss=aux_loss,
        )
