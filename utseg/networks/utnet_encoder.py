"""UTNet with attention in the encoder only: a preset of `utnet`, which says all else."""

from collections.abc import Sequence

from utseg.networks.utnet import UTNet


class UTNetEncoder(UTNet):
    """UTNet with attention in the encoder only (Gao, Zhou, Metaxas, 2021)."""

    def __init__(
        self,
        *,
        in_channels: int = 1,
        num_classes: int = 4,
        base_channels: int = 32,
        levels: int = 4,
        block_list: Sequence[int] = (1, 2, 3, 4),
        num_blocks: Sequence[int] = (1, 1, 1, 1),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        reduce_size: int = 8,
        projection: str = "interp",
        relative_position: str = "2d-bias",
        downsampling: str = "maxpool",
        bottleneck: bool = False,
        dropout: float = 0.1,
        aux_loss: bool = True,
    ) -> None:
        """Settings as UTNet's. Raises SettingError."""
        super().__init__(
            in_channels=in_channels,
            num_classes=num_classes,
            base_channels=base_channels,
            levels=levels,
            block_list=block_list,
            num_blocks=num_blocks,
            num_heads=num_heads,
            reduce_size=reduce_size,
            projection=projection,
            relative_position=relative_position,
            attention_in="encoder",
            downsampling=downsampling,
            bottleneck=bottleneck,
            dropout=dropout,
            aux_loss=aux_loss,
        )
