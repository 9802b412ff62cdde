"""A package of somebody else that adds a network: this file, and an entry point. Tests put its folder on PYTHONPATH."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from utseg.networks.layers.sizes import upsample
from utseg.networks.network import SegmentationNetwork


class TinyNetwork(SegmentationNetwork):
    """One convolution at full resolution and one at half, from a package outside utseg."""

    @classmethod
    def plan_settings(cls, **sizes: Any) -> dict[str, tuple[Any, str]]:
        return {
            "widths": ((8, 16), "8 and 16: what a package outside utseg thinks of a plan"),
            "aux_loss": (False, "False: not wanted"),
        }

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        widths: Sequence[int] = (8, 8),
        aux_loss: bool = True,
    ) -> None:
        super().__init__(num_classes=num_classes, map_channels=widths, levels=1, aux_loss=aux_loss)
        fine, coarse = widths
        self.fine = nn.Sequential(nn.Conv2d(in_channels, fine, 3, padding=1), nn.BatchNorm2d(fine), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(fine, coarse, 3, 2, 1), nn.BatchNorm2d(coarse), nn.ReLU())
        self.back = nn.Conv2d(coarse, fine, 1)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        fine = self.fine(x_BCHW)
        coarse = self.coarse(fine)
        return [fine + upsample(self.back(coarse), fine.shape[-2:]), coarse]
