"""A package of somebody else that adds a network: this file, and an entry point. Tests put its folder on PYTHONPATH."""

from torch import Tensor, nn

from utseg.networks.layers.sizes import upsample
from utseg.networks.network import SegmentationNetwork


class TinyNetwork(SegmentationNetwork):
    """One convolution at full resolution and one at half, from a package outside utseg."""

    def __init__(
        self, *, in_channels: int = 1, num_classes: int = 4, width: int = 8, aux_loss: bool = True
    ) -> None:
        super().__init__(num_classes=num_classes, map_channels=[width, width], levels=1, aux_loss=aux_loss)
        self.fine = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.coarse = nn.Sequential(nn.Conv2d(width, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        fine = self.fine(x_BCHW)
        coarse = self.coarse(fine)
        return [fine + upsample(coarse, fine.shape[-2:]), coarse]
