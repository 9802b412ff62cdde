"""U-Net decoder on the ResNet-50 of the public hybrid vision Transformers: the ResNet baseline of the UTNet publication.

The decoder is the official UTNet's: one pre-activation block a level, logits by a 3×3 convolution of the finest map (½), upsampled.
The encoder takes the public weights `R50+ViT-B_16.npz`.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from utseg.networks.layers.blocks import PreActivationBlock, UpsampledProjection, decode
from utseg.networks.layers.checks import check_whole
from utseg.networks.layers.resnet50 import LEVELS, ResNet50, check_resnet
from utseg.networks.layers.sizes import upsample
from utseg.networks.network import Family, SegmentationNetwork, prefer_channels_last
from utseg.networks.pretrained.r50_vit_weights import import_r50_vit, resnet_layers


class ResNetUpStage(nn.Module):
    """Bring the coarser map to the skip's size and channels, join them, one pre-activation block."""

    def __init__(self, low_channels: int, channels: int) -> None:
        super().__init__()
        self.project = UpsampledProjection(low_channels, channels)
        self.block = PreActivationBlock(2 * channels, channels)

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
        up = self.project(low_BCHW, skip_BCHW.shape[-2:])
        x: Tensor = self.block(torch.cat([skip_BCHW, up], dim=1))
        return x


class ResNet50UNet(SegmentationNetwork):
    """U-Net on a weight-standardised, group-normed ResNet-50 encoder (Gao et al. 2021).

    Channels are resnet_width · (1, 4, 8, 16) at ½, ¼, ⅛ and 1/16.
    """

    family: ClassVar[Family] = "convolutional"

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        resnet_width: int = 64,
        resnet_units: Sequence[int] = (3, 4, 9),
        aux_loss: bool = False,
    ) -> None:
        """resnet_width: channels of the stem. resnet_units: bottleneck units of the three blocks. aux_loss: heads at ¼ and ⅛ too.
        Raises SettingError.
        """
        width, units = check_resnet(resnet_width, resnet_units)
        check_whole("in_channels", in_channels)
        encoder = ResNet50(in_channels, width, units)
        super().__init__(
            num_classes=num_classes,
            map_channels=encoder.channels[:-1],
            levels=LEVELS,
            aux_loss=aux_loss,
            head_kernel=3,
        )
        self.encoder = encoder
        self.decoder = nn.ModuleList(
            ResNetUpStage(low, channels)
            for channels, low in zip(encoder.channels[:-1], encoder.channels[1:], strict=True)
        )
        prefer_channels_last(self)

    def skips(self, maps: list[Tensor]) -> list[Tensor]:
        """What the decoder gets of the encoder's maps."""
        return maps

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at ½ (upsampled to full size), ¼ and ⅛."""
        finest, *others = decode(self.decoder, self.skips(self.encoder(x_BCHW)))
        return [upsample(finest, x_BCHW.shape[-2:]), *others]

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The encoder out of the public `R50+ViT-B_16.npz`; see `r50_vit_weights.py`."""
        return import_r50_vit({"encoder.": self.encoder}, weights)

    def pretrained_layers(self) -> list[tuple[str, ...]]:
        """Stem and blocks of the ResNet."""
        return resnet_layers(self.encoder, "encoder.")
