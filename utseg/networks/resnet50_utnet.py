"""UTNet's efficient attention on the ResNet-50 of the public hybrid vision Transformers.

Gao, Zhou, Metaxas: *UTNet*, MICCAI 2021, official code: Transformer blocks stand between the encoder's maps and the decoder, so that the
convolutions of the encoder never see their results. Heads are meant as heads here; the official code takes the number given for the
channels of a head.
"""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from utseg.errors import SettingError
from utseg.networks.layers.attention import AttentionSettings
from utseg.networks.layers.checks import check_divides, check_listed, check_wholes
from utseg.networks.network import Family, prefer_channels_last
from utseg.networks.resnet50_unet import ResNet50UNet
from utseg.networks.utnet import TransformerBlock


def _one_each(name: str, value: object, blocks: Sequence[int]) -> dict[int, int]:
    """An entry for each of the attended blocks, or one for all, as {block: entry}."""
    entries = check_wholes(name, value)
    if len(entries) not in (1, len(blocks)):
        raise SettingError(
            f"{name} is {entries!r}, {len(entries)} entries; attention_blocks {tuple(blocks)!r} takes {len(blocks)}, or 1 for all"
        )
    return dict(zip(blocks, entries if len(entries) > 1 else entries * len(blocks), strict=True))


class ResNet50UTNet(ResNet50UNet):
    """ResNet-50 U-Net with efficient attention on its skips and bottom (Gao et al. 2021)."""

    family: ClassVar[Family] = "hybrid"

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        resnet_width: int = 64,
        resnet_units: Sequence[int] = (3, 4, 9),
        attention_blocks: Sequence[int] = (1, 2, 3),
        transformer_blocks: Sequence[int] = (1,),
        attention_heads: Sequence[int] = (4,),
        reduce_size: int = 8,
        projection: str = "interp",
        relative_position: str = "2d-bias",
        dropout: float = 0.1,
        aux_loss: bool = False,
    ) -> None:
        """attention_blocks: blocks of the ResNet whose maps get attention, 0 (the stem, ½) to 3 (1/16). transformer_blocks,
        attention_heads: an entry for each of them, or one for all. The rest is as in UTNet and ResNet50UNet. Raises SettingError.
        """
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            resnet_width=resnet_width,
            resnet_units=resnet_units,
            aux_loss=aux_loss,
        )
        allowed = "numbers from 0 (the stem) to 3 (the last block), each once"
        attended = check_listed("attention_blocks", attention_blocks, 3, allowed)
        blocks = _one_each("transformer_blocks", transformer_blocks, attended)
        heads = _one_each("attention_heads", attention_heads, attended)
        channels = self.encoder.channels
        for block in attended:
            check_divides("attention_heads", heads[block], channels[block], f"block {block}")
        attention = AttentionSettings(reduce_size, projection, relative_position, dropout)
        self.transformers = nn.ModuleDict(
            {
                str(block): nn.Sequential(
                    *(
                        TransformerBlock(channels[block], heads[block], attention)
                        for _ in range(blocks[block])
                    )
                )
                for block in attended
            }
        )
        prefer_channels_last(self)

    def skips(self, maps: list[Tensor]) -> list[Tensor]:
        """The encoder's maps after their Transformer blocks."""
        return [
            self.transformers[str(block)](x) if str(block) in self.transformers else x
            for block, x in enumerate(maps)
        ]
