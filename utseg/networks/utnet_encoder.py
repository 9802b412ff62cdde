"""UTNet with attention in the encoder only: a preset of `utnet`, which says all else."""

from typing import ClassVar

from utseg.networks.utnet import UTNet


class UTNetEncoder(UTNet):
    """UTNet with attention in the encoder only (Gao, Zhou, Metaxas, 2021)."""

    fixed: ClassVar = {"attention_in": "encoder"}
