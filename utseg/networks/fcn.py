"""FCN-8s: a classifier made convolutional, whose scores at 1/32, 1/16 and 1/8 are upsampled and summed. Where the story starts.

Long, Shelhamer, Darrell: *Fully Convolutional Networks for Semantic Segmentation*, CVPR 2015. The classifier is VGG-16 (Simonyan and
Zisserman, 2015) with base_channels where that has 64, batch normalisation, and as many channels in its two last layers as fit the rest;
not pretrained. All upsampling is learnt and starts out bilinear (the paper fixes the last).
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks.layers.blocks import conv_norm_relu
from utseg.networks.layers.checks import Count, Flag, Fraction
from utseg.networks.layers.dropout import dropout as drop
from utseg.networks.network import SegmentationNetwork

# VGG-16: convolutions of a stage, and its channels in multiples of the first stage's. Each stage ends in max-pooling.
_STAGES = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))
_CLASSIFIER = 16  # channels of the classifier's layers, in the same multiples


def learnt_upsampling(channels: int, factor: int) -> nn.ConvTranspose2d:
    """A transposed convolution that upsamples by an even factor: bilinear interpolation of each channel by itself to begin with."""
    layer = nn.ConvTranspose2d(channels, channels, 2 * factor, stride=factor, padding=factor // 2, bias=False)
    ramp = 1 - ((torch.arange(2 * factor) + 0.5) / factor - 1).abs()
    with torch.no_grad():
        layer.weight.copy_(torch.eye(channels)[:, :, None, None] * torch.outer(ramp, ramp))
    return layer


class FCN(SegmentationNetwork):
    """FCN-8s: scores of a VGG at 1/32, 1/16 and 1/8, upsampled and summed (Long et al., 2015).

    `heads` upsample to full size: the sum at 1/8 (FCN-8s), that at 1/16 (FCN-16s), the scores at 1/32 (FCN-32s).
    """

    def __init__(
        self,
        *,
        in_channels: Count = 1,
        num_classes: Count = 4,
        base_channels: Count = 32,
        dropout: Fraction = 0.5,
        aux_loss: Flag = False,
    ) -> None:
        """base_channels: 64 in the paper. dropout: after each of the classifier's layers, in training. aux_loss: the logits of FCN-16s
        and FCN-32s too.
        """
        super().__init__(
            num_classes=num_classes, map_channels=[num_classes] * 3, levels=len(_STAGES), aux_loss=aux_loss
        )
        self.dropout = dropout
        channels = [base_channels * multiple for _, multiple in _STAGES]
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv_norm_relu(channels[stage - 1] if stage else in_channels, channels[stage]),
                *(conv_norm_relu(channels[stage], channels[stage]) for _ in range(convs - 1)),
            )
            for stage, (convs, _) in enumerate(_STAGES)
        )
        wide = base_channels * _CLASSIFIER
        self.classifier = nn.ModuleList(
            [conv_norm_relu(channels[-1], wide, 7), conv_norm_relu(wide, wide, 1)]
        )
        self.scores = nn.ModuleList(nn.Conv2d(of, num_classes, 1) for of in (channels[2], channels[3], wide))
        self.doubling = nn.ModuleList(learnt_upsampling(num_classes, 2) for _ in range(2))
        self.heads = nn.ModuleList(
            learnt_upsampling(num_classes, factor) for factor in (8, 16, 32)[: len(self.heads)]
        )

    def class_axes(self) -> dict[str, tuple[int, ...]]:
        """The scores, and the upsampling of each class into each."""
        return {
            name: (0,) if name.startswith("scores.") else (0, 1)
            for name, _ in self.named_parameters()
            if name.startswith(("scores.", "doubling.", "heads."))
        }

    def class_biases(self) -> list[Tensor]:
        """That of the scores at 1/32, which are upsampled into all others."""
        return [cast(Tensor, self.scores[-1].bias)]

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Scores (B, num_classes, …) at 1/8, 1/16 and 1/32, each summed with the coarser ones."""
        pooled: list[Tensor] = []
        for stage in self.stages:
            x_BCHW = F.max_pool2d(stage(x_BCHW), 2)
            pooled.append(x_BCHW)
        for layer in self.classifier:
            x_BCHW = drop(layer(x_BCHW), self.dropout, self.training)
        at_8, at_16, at_32 = (
            cast(Tensor, score(x)) for score, x in zip(self.scores, (*pooled[2:4], x_BCHW), strict=True)
        )
        at_16 = torch.add(at_16, self.doubling[1](at_32))
        return [torch.add(at_8, self.doubling[0](at_16)), at_16, at_32]
