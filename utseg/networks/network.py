"""What every network shares: sizes, the head, deep supervision, and a way round it for inference.

Does not say what encoder and decoder are: a network derives from `SegmentationNetwork` and gives `decoder_maps`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from utseg.errors import SettingError
from utseg.networks.layers.blocks import decode, encode
from utseg.networks.layers.checks import check_count
from utseg.networks.layers.sizes import crop_to_size, pad_to_multiple, upsample

Family = Literal["convolutional", "hybrid", "transformer"]


class SegmentationNetwork(nn.Module):
    """Image (B, in_channels, H, W) of any size → logits (B, num_classes, H, W).

    With `aux_loss`, `forward` gives a tuple in training and evaluation alike: the logits, then those of the coarser decoder maps, each
    coarser than the one before, all upsampled to full size. `main_logits` gives the first alone, at no cost for the others.

    `family` says which recipe trains it unless another is asked for. The first line of a network's docstring is what `utseg_networks`
    says that it is.
    """

    family: ClassVar[Family] = "convolutional"
    # What a preset says of the settings of the class that it derives from; nobody else can set them.
    fixed: ClassVar[Mapping[str, Any]] = {}
    published: ClassVar[Mapping[str, str]] = {}
    """Settings whose defaults the planner `published` takes, each with what the publication says."""

    @classmethod
    def plan_settings(
        cls,
        *,
        patch_size: tuple[int, int],
        spacing_yx_mm: tuple[float, float],
        levels: int,
        base_channels: int,
        structure: tuple[str, float] | None,
        long_training: bool,
    ) -> dict[str, tuple[Any, str]]:
        """Settings that follow from what is planned, each with its reason; all others stay at their defaults.

        Those called `base_channels` and `levels` are the planner's. `structure`: the smallest label and its diameter in mm.
        """
        return {}

    @classmethod
    def completed_settings(cls, planned: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The planned settings with those that a user gives on top, and what follows from those."""
        return {**planned, **given}

    def __init__(
        self,
        *,
        num_classes: int,
        map_channels: Sequence[int],
        levels: int,
        aux_loss: bool,
        head_kernel: int = 1,
    ) -> None:
        """`map_channels`: channels of the decoder maps, finest first. `levels`: halvings; images are padded to a multiple of 2^levels.
        `head_kernel`: size of the convolutions that make logits of the maps, 1 or 3.
        """
        super().__init__()
        check_count("num_classes", num_classes)
        if not isinstance(aux_loss, bool):
            raise SettingError(f"aux_loss is {aux_loss!r}; it must be true or false")
        self.aux_loss = aux_loss
        self.upsamples_auxiliary = True  # False: `forward` gives auxiliary logits at the size of their maps
        self.multiple = (2**levels, 2**levels)
        self.heads = nn.ModuleList(
            nn.Conv2d(channels, num_classes, head_kernel, padding=head_kernel // 2)
            for channels in (map_channels if aux_loss else map_channels[:1])
        )

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps of a padded image, finest first, of `map_channels`. Given by each network."""
        raise TypeError(f"{type(self).__name__} has no decoder_maps")

    def from_public_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Published weights under this network's own names, in its own order and for its own grid; None where they are of no
        format that the network knows. May cover a part of the network, such as a pretrained encoder.

        Overridden where there are such weights. Raises InputError where the format is known and something does not fit.
        """
        return None

    def class_axes(self) -> dict[str, tuple[int, ...]]:
        """The parameters that have an entry for each class, by name, and along which axes: what is reordered with the labels.

        Overridden where classes are told apart before the heads.
        """
        return {f"heads.{name}": (0,) for name, _ in self.heads.named_parameters()}

    def in_class_order(self, values: Mapping[str, Tensor], order: Sequence[int]) -> dict[str, Tensor]:
        """Values under this network's names with classes in another order: the new class k is the class `order[k]` of before.

        Those of another shape than this network's stay as they are.
        """
        changed, own = dict(values), self.state_dict()
        for name, axes in self.class_axes().items():
            for axis in axes if name in changed and changed[name].shape == own[name].shape else ():
                changed[name] = changed[name].index_select(
                    axis, torch.tensor(order, device=changed[name].device)
                )
        return changed

    def pretrained_layers(self) -> list[tuple[str, ...]]:
        """Prefixes of parameter names, layer by layer from the image on, for layer-wise decay of the learning rate; what has none of
        them comes last. Overridden where there are pretrained weights.
        """
        return []

    def position_tables(self) -> set[str]:
        """The parameters that say where something is, by name: a layer has `position_table_names`. AdamW does not decay them."""
        return {
            f"{name}.{table}"
            for name, layer in self.named_modules()
            for table in getattr(layer, "position_table_names", ())
        }

    def class_biases(self) -> list[Tensor]:
        """Biases (num_classes,) that alone make each output while weights say nothing yet. Overridden where heads have none."""
        return [bias for head in self.heads if isinstance(bias := head.bias, Tensor)]

    def expect_foreground(self, share: float, *, regions: bool = False) -> None:
        """Outputs begin with that probability for all structures together, each alike; regions, which overlap, with a part of it each.

        Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, section 4.1.
        """
        with torch.no_grad():
            for bias_K in self.class_biases():
                odds = share / (1 - share)
                bias_K[0] = -math.log(odds) if regions else 0.0
                bias_K[1:] = math.log(odds / max(1, len(bias_K) - 1))

    def prefer_channels_last(self) -> None:
        """Store convolution weights channels-last; feature maps follow the weights. Loading a state dict keeps it so."""
        for module in self.modules():  # one by one: network.to(…) cannot be planned with fake tensors
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight.data = module.weight.detach().contiguous(memory_format=torch.channels_last)

    def _logits(self, x_BCHW: Tensor, heads: int) -> list[Tensor]:
        size_HW = (x_BCHW.shape[-2], x_BCHW.shape[-1])
        padded = pad_to_multiple(x_BCHW, self.multiple)
        maps = self.decoder_maps(padded.contiguous(memory_format=torch.channels_last))
        logits: list[Tensor] = []
        for head, level_map in zip(self.heads[:heads], maps[:heads], strict=True):
            if self.upsamples_auxiliary or not logits:
                full = upsample(head(level_map), padded.shape[-2:])
                logits.append(crop_to_size(full, size_HW, self.multiple))
            else:
                logits.append(head(level_map))
        return logits

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        logits = self._logits(x_BCHW, len(self.heads))
        return tuple(logits) if self.aux_loss else logits[0]

    def main_logits(self, x_BCHW: Tensor) -> Tensor:
        """Full-resolution logits (B, num_classes, H, W): what prediction and validation want. Skips the auxiliary heads."""
        return self._logits(x_BCHW, 1)[0]


class UShapedNetwork(SegmentationNetwork):
    """An encoder and a decoder with a stage a level, finest first; level L has base_channels · 2^L channels after L halvings.

    A network that derives from it makes the stages. Those of the decoder take the coarser map and the skip. Of the settings of all of
    them, `levels` is the number of halvings, and `aux_loss` gives heads at ½, ¼, … too.
    """

    encoder: nn.ModuleList
    decoder: nn.ModuleList

    def __init__(self, num_classes: int, base_channels: int, levels: int, aux_loss: bool) -> None:
        check_count("base_channels", base_channels)
        check_count("levels", levels)
        channels = tuple(base_channels * 2**level for level in range(levels + 1))
        super().__init__(
            num_classes=num_classes, map_channels=channels[:-1], levels=levels, aux_loss=aux_loss
        )
        self.channels = channels

    def encode(self, x_BCHW: Tensor) -> list[Tensor]:
        """Encoder maps at levels 0 … levels."""
        return encode(self.encoder, x_BCHW)

    def decoder_maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Decoder maps at levels 0 … levels - 1."""
        return decode(self.decoder, self.encode(x_BCHW))
