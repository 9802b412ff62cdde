"""Batch normalisation adapted to each volume before it is predicted: no labels, no training, nothing that lasts.

Running statistics were gathered on training scanners. Here those of each layer are mixed with the volume's own, `share` of them: 1 is
prediction-time batch normalisation (Nado et al., *Evaluating Prediction-Time Batch Normalization for Robustness under Covariate Shift*,
2020), less keeps the training's as a prior (Schneider et al., *Improving robustness against common corruptions by covariate shift
adaptation*, NeurIPS 2020). Layers are adapted in one pass from first to last, each to what the adapted ones before it give.

A volume's result depends on that volume alone: neither on other volumes, nor on the size of batches.

Axes: B windows, C channels, Z slices, Y rows, X columns; h, w: rows and columns of a window.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from utseg.errors import InputError, SettingError, UtsegError, listing
from utseg.predict.windows import PredictedVolume, is_out_of_memory, predict_volumes, window_grid

logger = logging.getLogger("utseg")

Array = NDArray[np.float32]
MOST_WINDOWS = 16
"""Statistics are taken from up to so many windows, spread evenly over the volume: as many as a batch may have elsewhere."""


def predict_adapted(
    networks: Sequence[nn.Module],
    images: Iterable[Array],
    *,
    share: float,
    patch_size: tuple[int, int],
    device: torch.device,
    **settings: Any,
) -> Iterator[PredictedVolume]:
    """`predict_volumes`, with the networks adapted to each image (C, Z, Y, X) while it is predicted. They are in evaluation mode.

    share: from 0, nothing, to 1, statistics of the image alone. `settings`: the others of `predict_volumes`.
    Raises UtsegError where memory is too short.
    """
    for image_CZYX in images:
        with adapted(networks, image_CZYX, share=share, patch_size=patch_size, device=device):
            (predicted,) = predict_volumes(
                networks, [image_CZYX], patch_size=patch_size, device=device, **settings
            )
        yield predicted


def check_adaptation(networks: Mapping[str, nn.Module], share: float) -> None:
    """Raises SettingError for a share outside 0 … 1, InputError where none of the networks, by name, has anything to adapt."""
    if not 0 <= share <= 1:
        raise SettingError(
            f"--adapt-batchnorm {share:g}: expected the share of a volume's own statistics, from 0 to 1"
        )
    without = [name for name, network in networks.items() if not batch_norms(network)]
    if share and len(without) == len(networks):
        raise InputError(
            f"--adapt-batchnorm: there is no batch normalisation in {listing(without)}; predict without this option"
        )
    if share and without:
        logger.warning("no batch normalisation to adapt in %s: it predicts as it is", listing(without))


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The network's layers that normalise with statistics from training."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


@contextmanager
def adapted(
    networks: Sequence[nn.Module],
    image_CZYX: Array,
    *,
    share: float,
    patch_size: tuple[int, int],
    device: torch.device,
) -> Iterator[None]:
    """Within it the networks' statistics are adapted to the image; afterwards they are what they were, bit for bit."""
    buffers = [
        buffer for network in networks for norm in batch_norms(network) for buffer in _statistics(norm)
    ]
    before = [buffer.clone() for buffer in buffers]
    try:
        windows_BChw = torch.from_numpy(spread_windows(image_CZYX, patch_size))
        for network in networks:
            _adapt(network, windows_BChw.to(device, memory_format=torch.channels_last), share)
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


def spread_windows(image_CZYX: Array, patch_size: tuple[int, int]) -> Array:
    """Up to MOST_WINDOWS of the windows (B, C, h, w) that prediction covers the image with, evenly among them; padded as there."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    _, slices, height, width = image_CZYX.shape
    grid = window_grid((height, width), patch_size)
    places = [(z, start) for z in range(slices) for start in grid.starts_yx]
    chosen = np.linspace(0, len(places) - 1, min(len(places), MOST_WINDOWS)).round().astype(int)
    windows = []
    for z, start in (places[index] for index in chosen):
        box = [[first, first + size] for first, size in zip(start, grid.window_yx, strict=True)]
        channels = image_CZYX[:, z]
        windows.append([crop_and_pad_nd(each, box, pad_value=each.min()) for each in channels])
    return np.array(windows, dtype=np.float32)


@torch.inference_mode()
def _adapt(network: nn.Module, windows_BChw: Tensor, share: float) -> None:
    """Sends the windows through; each layer takes up the statistics of what reaches it, then normalises with them."""

    def take_up(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()
        found = torch.var_mean(x, [axis for axis in range(x.ndim) if axis != 1], correction=0)
        mean, variance = _statistics(cast(_BatchNorm, norm))
        variance.lerp_(found[0], share)
        mean.lerp_(found[1], share)

    with ExitStack() as hooks:
        for norm in batch_norms(network):
            hooks.callback(norm.register_forward_pre_hook(take_up).remove)
        try:
            cast(Callable[[Tensor], Tensor], network.main_logits)(windows_BChw)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise UtsegError(
                f"not enough memory on {windows_BChw.device} to adapt batch normalisation to a volume, which takes {len(windows_BChw)} "
                "windows at a time; predict without --adapt-batchnorm, or with --device cpu"
            ) from error


def _statistics(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Running mean and variance."""
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
