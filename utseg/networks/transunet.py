"""TransUNet: a vision Transformer on the coarsest map of a ResNet-50, and a U-Net decoder on both.

Chen et al.: *TransUNet: Transformers Make Strong Encoders for Medical Image Segmentation*, 2021, R50-ViT-B/16; with `backbone="none"` the
ViT-only variant: 16 × 16 patches of the image, and a decoder without skips. Takes the public weights `R50+ViT-B_16.npz` or `ViT-B_16.npz`.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from utseg.errors import SettingError
from utseg.networks.layers.blocks import conv_norm_relu
from utseg.networks.layers.checks import Count, Flag, Fraction
from utseg.networks.layers.resnet50 import LEVELS, ResNet50, Units, Width
from utseg.networks.layers.sizes import upsample
from utseg.networks.layers.vit import VisionTransformer
from utseg.networks.network import Family, SegmentationNetwork
from utseg.networks.pretrained.r50_vit_weights import import_r50_vit, resnet_layers, transformer_layers


class TransUNetUpStage(nn.Module):
    """Double the resolution bilinearly, join with the skip if there is one, two convolutions."""

    def __init__(self, low_channels: int, skip_channels: int, channels: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm_relu(low_channels + skip_channels, channels), conv_norm_relu(channels, channels)
        )

    def forward(self, low_BCHW: Tensor, skip_BCHW: Tensor | None) -> Tensor:
        up = upsample(low_BCHW, (2 * low_BCHW.shape[-2], 2 * low_BCHW.shape[-1]))
        x: Tensor = self.convs(up if skip_BCHW is None else torch.cat([up, skip_BCHW], dim=1))
        return x


class TransUNet(SegmentationNetwork):
    """Vision Transformer on a ResNet-50, U-Net decoder: R50-ViT-B/16 (Chen et al. 2021)."""

    family: ClassVar[Family] = "transformer"

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        backbone: Literal["r50", "none"] = "r50",
        resnet_width: Width = 64,
        resnet_units: Units = (3, 4, 9),
        hidden_size: Count = 768,
        transformer_layers: Count = 12,
        attention_heads: Count = 12,
        mlp_size: Count = 3072,
        decoder_channels: tuple[Count, Count, Count, Count, Count] = (512, 256, 128, 64, 16),
        dropout: Fraction = 0.1,
        aux_loss: Flag = False,
    ) -> None:
        """backbone: "r50", or "none" for the ViT-only variant. resnet_width, resnet_units: as in ResNet50UTNet. hidden_size, …, mlp_size:
        of the Transformer. decoder_channels: at 1/16, ⅛, ¼, ½ and full size. dropout: of the Transformer, in training. aux_loss: heads at
        ½, ¼ and ⅛ too.
        """
        if hidden_size % attention_heads:
            raise SettingError(
                f"attention_heads is {attention_heads}; it must divide hidden_size, which is {hidden_size}"
            )
        super().__init__(
            num_classes=num_classes,
            map_channels=decoder_channels[:0:-1],
            levels=LEVELS,
            aux_loss=aux_loss,
            head_kernel=3,
        )
        self.repeat = 3 if in_channels == 1 else 1
        self.resnet = ResNet50(in_channels, resnet_width, resnet_units) if backbone == "r50" else None
        self.vit = VisionTransformer(
            self.resnet.channels[-1] if self.resnet else in_channels * self.repeat,
            patch=1 if self.resnet else 2**LEVELS,
            hidden=hidden_size,
            layers=transformer_layers,
            heads=attention_heads,
            mlp_size=mlp_size,
            dropout=dropout,
        )
        skips = (0, *self.resnet.channels[:-1]) if self.resnet else (0, 0, 0, 0)
        self.narrow = conv_norm_relu(hidden_size, decoder_channels[0])
        self.decoder = nn.ModuleList(
            map(TransUNetUpStage, decoder_channels, skips[::-1], decoder_channels[1:])
        )

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at full size, ½, ¼ and ⅛."""
        skips: list[Tensor | None] = [None] * LEVELS
        if self.resnet:
            *maps, x = self.resnet(x_BCHW)
            skips[1:] = maps
        else:
            x = x_BCHW.expand(-1, self.repeat, -1, -1) if self.repeat > 1 else x_BCHW
        x = self.narrow(self.vit(x))
        decoded = []
        for stage in self.decoder:
            x = stage(x, skips.pop())
            decoded.append(x)
        return decoded[::-1]

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The encoder out of the public `R50+ViT-B_16.npz` (ViT-only: `ViT-B_16.npz`); see `r50_vit_weights.py`."""
        return import_r50_vit(
            {"vit.": self.vit} if self.resnet is None else {"resnet.": self.resnet, "vit.": self.vit}, weights
        )

    def pretrained_layers(self) -> list[tuple[str, ...]]:
        """Stem and blocks of the ResNet, the patch embedding with its positions, the layers of the Transformer."""
        resnet = resnet_layers(self.resnet, "resnet.") if self.resnet else []
        return resnet + transformer_layers(self.vit, "vit.")
