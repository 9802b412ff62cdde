"""Class probabilities of volumes that are already preprocessed: slices of many volumes share full batches, results come in input order.

Every network sees windows of the patch size. A slice smaller than the patch is padded evenly with its own minimum, as in training; one
that is hardly larger is taken whole; any other is covered by windows that overlap (by half, if not asked otherwise) and are joined with
Gaussian weights. What members agree on is summed up by window, with the same weights, while their probabilities are there: none is kept.
Nothing is resampled or normalised here, and no file is read or written.

Axes: B batch, C channels, K classes, Z slices, Y rows, X columns; h, w: rows and columns of a window.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from utseg.errors import UtsegError
from utseg.quality.agreement import Agreement, Sums

logger = logging.getLogger("utseg")

Array = NDArray[np.float32]
Axis = Literal["y", "x"]
OVERLAP = 0.5
GROWTH = 1 / 8
"""A slice that exceeds the patch by up to this fraction is one larger window: networks take any size, and two windows cost twice."""
GROWN_MULTIPLE = 16
GAUSSIAN_SD = 1 / 8
"""Standard deviation of the window weights as a fraction of the window, as in nnU-Net (Isensee et al., Nature Methods 2021)."""
LEAST_WEIGHT = 1e-3
BATCHES_AHEAD = 4
CPU_BATCH_PIXELS = 256 * 256
"""Larger batches leave the processor's cache: UTNet takes .19 s a slice of 256² one at a time, .27 s four at a time (two cores)."""
LARGEST_BATCH = 16


@dataclass(frozen=True)
class PredictedVolume:
    """Mean class probabilities (K, Z, Y, X) float32, and the agreement of the members: networks times mirrorings."""

    probabilities_KZYX: Array
    agreement: Agreement


@dataclass(frozen=True)
class Grid:
    """Where windows lie on a slice: their size, and their first row and column (negative where the slice is padded)."""

    slice_yx: tuple[int, int]
    window_yx: tuple[int, int]
    starts_yx: tuple[tuple[int, int], ...]


@lru_cache(maxsize=256)
def window_grid(slice_yx: tuple[int, int], patch_yx: tuple[int, int], overlap: float = OVERLAP) -> Grid:
    """As few windows as cover the slice with at least that overlap, a fraction of the window."""
    axes = [_axis_windows(size, patch, overlap) for size, patch in zip(slice_yx, patch_yx, strict=True)]
    (height, ys), (width, xs) = axes
    return Grid(slice_yx, (height, width), tuple((y, x) for y in ys for x in xs))


def _axis_windows(size: int, patch: int, overlap: float) -> tuple[int, list[int]]:
    """Length of the windows along one axis, and where each starts."""
    window = patch
    if size > patch:
        grown = -(-size // GROWN_MULTIPLE) * GROWN_MULTIPLE
        window = grown if grown <= patch * (1 + GROWTH) else patch
    if size <= window:
        return window, [-((window - size) // 2)]
    step = max(1, int(window * (1 - overlap)))
    count = -(-(size - window) // step) + 1
    return window, [round(start) for start in np.linspace(0, size - window, count)]


@lru_cache(maxsize=32)
def gaussian_weights(window_yx: tuple[int, int]) -> Array:
    """Weights (h, w) of one window's pixels: 1 in the middle, never below LEAST_WEIGHT."""
    profiles = []
    for length in window_yx:
        distance = np.arange(length) - (length - 1) / 2
        profiles.append(np.exp(-0.5 * (distance / (length * GAUSSIAN_SD)) ** 2))
    weights = np.outer(*profiles)
    at_least: Array = np.maximum(weights / weights.max(), LEAST_WEIGHT).astype(np.float32)
    return at_least


def default_batch_size(patch_yx: tuple[int, int], device: torch.device) -> int:
    """How many windows at a time are quickest without gradients: what the cache holds on a CPU, enough to fill a GPU."""
    if device.type == "cpu":
        return min(max(1, CPU_BATCH_PIXELS // (patch_yx[0] * patch_yx[1])), LARGEST_BATCH)
    return LARGEST_BATCH


def predict_volumes(
    networks: Sequence[nn.Module],
    images: Iterable[Array],
    *,
    patch_size: tuple[int, int],
    batch_size: int,
    num_classes: int,
    mirror_axes: Sequence[Axis],
    device: torch.device,
    overlap: float = OVERLAP,
) -> Iterator[PredictedVolume]:
    """For each image (C, Z, Y, X) its class probabilities (K, Z, Y, X), float32, and the members' agreement, in the order of the images.

    The mean of the softmax over all networks and over all mirrorings along `mirror_axes` (none if empty). The networks are on
    `device`; they are in evaluation mode while the iterator lives, and as they were after it. Images are asked for as batches need
    them: what is held at a time does not grow with their number, nor with the number of networks beyond their weights.
    Out of memory halves the batch and goes on; on a GPU that cannot hold one window it goes on on the CPU. The log says so.
    """
    forward = _Forward(networks, device, batch_size, mirror_axes)
    under_way: deque[_Volume] = deque()
    queues: dict[tuple[int, int], deque[_Window]] = {}
    modes = [network.training for network in networks]
    try:
        for network in networks:
            network.eval()
        for image_CZYX in images:
            volume = _Volume.start(image_CZYX, patch_size, num_classes, overlap)
            under_way.append(volume)
            queue = queues.setdefault(volume.grid.window_yx, deque())
            queue.extend(volume.windows())
            while len(queue) >= forward.batch_size:
                _run_batch(forward, queue)
            while under_way:
                if not under_way[0].missing:
                    yield under_way.popleft().predicted(forward.members)
                elif sum(v.slices for v in under_way) - volume.slices > BATCHES_AHEAD * forward.batch_size:
                    _run_batch(forward, queues[under_way[0].grid.window_yx])
                else:
                    break
        while under_way:
            while under_way[0].missing:
                _run_batch(forward, queues[under_way[0].grid.window_yx])
            yield under_way.popleft().predicted(forward.members)
    finally:
        for network, training in zip(networks, modes, strict=True):
            network.train(training)
            network.to(device)


@dataclass
class _Volume:
    """One image under way. `missing` counts the windows that were not predicted yet."""

    image_CZYX: Array
    grid: Grid
    sum_KZYX: Array
    missing: int = field(init=False)
    agreement_2K: Sums = field(init=False)

    def __post_init__(self) -> None:
        self.missing = self.slices * len(self.grid.starts_yx)
        self.agreement_2K = np.zeros((2, len(self.sum_KZYX)))

    @classmethod
    def start(
        cls, image_CZYX: Array, patch_yx: tuple[int, int], num_classes: int, overlap: float
    ) -> "_Volume":
        _, slices, height, width = image_CZYX.shape
        grid = window_grid((height, width), (patch_yx[0], patch_yx[1]), overlap)
        return cls(image_CZYX, grid, np.zeros((num_classes, slices, height, width), np.float32))

    @property
    def slices(self) -> int:
        return int(self.image_CZYX.shape[1])

    def windows(self) -> "Iterator[_Window]":
        return (_Window(self, z, start) for z in range(self.slices) for start in self.grid.starts_yx)

    def predicted(self, members: int) -> PredictedVolume:
        if len(self.grid.starts_yx) > 1:
            self.sum_KZYX /= _weight_sum(self.grid)
        return PredictedVolume(self.sum_KZYX, Agreement(members, *self.agreement_2K))


@dataclass(frozen=True)
class _Window:
    volume: _Volume
    z: int
    start_yx: tuple[int, int]

    def cut(self, out_Chw: Array) -> None:
        """Writes the window's pixels into `out_Chw`."""
        image_CYX = self.volume.image_CZYX[:, self.z]
        on_slice, in_window = _overlap(self.volume.grid, self.start_yx)
        part = image_CYX[:, *on_slice]
        if part.shape != out_Chw.shape:
            out_Chw[:] = image_CYX.min(axis=(1, 2), keepdims=True)
        out_Chw[:, *in_window] = part

    def add(self, probabilities_Khw: Array, agreement_2K: Array) -> None:
        """Adds the window's probabilities and sums to those of its volume."""
        on_slice, in_window = _overlap(self.volume.grid, self.start_yx)
        part = probabilities_Khw[:, *in_window]
        target = self.volume.sum_KZYX[:, self.z]
        if len(self.volume.grid.starts_yx) > 1:
            target[:, *on_slice] += part * gaussian_weights(self.volume.grid.window_yx)[in_window]
        else:
            target[:, *on_slice] = part
        self.volume.agreement_2K += agreement_2K
        self.volume.missing -= 1


def _overlap(grid: Grid, start_yx: tuple[int, int]) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the slice that a window shows, and where in the window it is."""
    on_slice, in_window = [], []
    for start, window, size in zip(start_yx, grid.window_yx, grid.slice_yx, strict=True):
        first, last = max(start, 0), min(start + window, size)
        on_slice.append(slice(first, last))
        in_window.append(slice(first - start, last - start))
    return (on_slice[0], on_slice[1]), (in_window[0], in_window[1])


@lru_cache(maxsize=32)
def _weight_sum(grid: Grid) -> Array:
    """Sum of all windows' weights (Y, X): what the weighted probabilities are divided by."""
    total = np.zeros(grid.slice_yx, np.float32)
    for start in grid.starts_yx:
        on_slice, in_window = _overlap(grid, start)
        total[on_slice] += gaussian_weights(grid.window_yx)[in_window]
    return total


@lru_cache(maxsize=64)
def _shares(grid: Grid, start_yx: tuple[int, int]) -> Array:
    """How much of each pixel (h, w) a window stands for: 0 beside the slice; over all windows each pixel of the slice counts 1."""
    shares = np.zeros(grid.window_yx, np.float32)
    on_slice, in_window = _overlap(grid, start_yx)
    weights = gaussian_weights(grid.window_yx)[in_window]
    shares[in_window] = weights / _weight_sum(grid)[on_slice] if len(grid.starts_yx) > 1 else 1
    return shares


def _run_batch(forward: "_Forward", queue: "deque[_Window]") -> None:
    windows = [queue.popleft() for _ in range(min(len(queue), forward.batch_size))]
    channels = windows[0].volume.image_CZYX.shape[0]
    batch_BChw = np.empty((len(windows), channels, *windows[0].volume.grid.window_yx), np.float32)
    for window, out_Chw in zip(windows, batch_BChw, strict=True):
        window.cut(out_Chw)
    shares_Bhw = np.stack([_shares(window.volume.grid, window.start_yx) for window in windows])
    for window, *found in zip(windows, *forward(batch_BChw, shares_Bhw), strict=True):
        window.add(*found)


class _Forward:
    """Mean probabilities of a batch and sums over its members, whatever memory allows: `batch_size`, `device` shrink when it runs out."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        device: torch.device,
        batch_size: int,
        mirror_axes: Sequence[Axis],
    ) -> None:
        self.networks = networks
        self.device = device
        self.batch_size = batch_size
        axes = [{"y": 2, "x": 3}[axis] for axis in mirror_axes]
        self.flips = [flip for count in range(len(axes) + 1) for flip in combinations(axes, count)]

    @property
    def members(self) -> int:
        return len(self.networks) * len(self.flips)

    def __call__(self, batch_BChw: Array, shares_Bhw: Array) -> tuple[Array, Array]:
        """Mean probabilities (B, K, h, w), and what `_agreement_sums` says of each window and class (B, 2, K)."""
        parts: list[tuple[Array, Array]] = []
        done = 0
        while done < len(batch_BChw):
            now = slice(done, done + self.batch_size)
            part = batch_BChw[now]
            try:
                parts.append(self._mean_softmax(part, shares_Bhw[now]))
                done += len(part)
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
                reason = error.with_traceback(None)  # its frames hold the memory of the failed attempt
            else:
                continue
            self._shrink(len(part), reason)
        means, sums = zip(*parts, strict=True)
        return (means[0], sums[0]) if len(parts) == 1 else (np.concatenate(means), np.concatenate(sums))

    @torch.inference_mode()
    def _mean_softmax(self, batch_BChw: Array, shares_Bhw: Array) -> tuple[Array, Array]:
        x_BChw = torch.from_numpy(batch_BChw).to(self.device, memory_format=torch.channels_last)
        total: Tensor | None = None
        squares: Tensor | None = None
        for network in self.networks:
            main_logits = cast(Callable[[Tensor], Tensor], network.main_logits)
            for flip in self.flips:
                logits_BKhw = main_logits(x_BChw.flip(flip) if flip else x_BChw)
                probabilities = logits_BKhw.float().softmax(1)
                probabilities = probabilities.flip(flip) if flip else probabilities
                squares = _add_square(squares, probabilities)
                total = probabilities if total is None else total.add_(probabilities)
        assert total is not None and squares is not None, "at least one network"
        sums_B2K = _agreement_sums(total, squares, torch.from_numpy(shares_Bhw).to(self.device))
        if self.members > 1:
            total = total / self.members
        return total.cpu().numpy(), sums_B2K.cpu().numpy()

    def _shrink(self, tried: int, reason: RuntimeError) -> None:
        """Makes the next attempt smaller: half the batch, then the CPU. Raises UtsegError where that is not enough."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried > 1:
            self.batch_size = tried // 2
            logger.warning(
                "out of memory with %d slices at a time on %s: going on with %d",
                tried,
                self.device,
                self.batch_size,
            )
        elif self.device.type != "cpu":
            logger.warning("%s has not the memory for one slice: going on on the CPU, slowly", self.device)
            self.device = torch.device("cpu")
            for network in self.networks:
                network.to(self.device)
        else:
            raise UtsegError(
                "not enough memory to predict one slice; close other programs or use a machine with more"
            ) from reason


def _add_square(squares: Tensor | None, probabilities: Tensor) -> Tensor:
    return probabilities.square() if squares is None else squares.addcmul_(probabilities, probabilities)


def _agreement_sums(total_BKhw: Tensor, squares_BKhw: Tensor, shares_Bhw: Tensor) -> Tensor:
    """Of each window and class Σ Σ_i p_i² and Σ Σ_{i<j} p_i·p_j = Σ ((Σ_i p_i)² − Σ_i p_i²) / 2, pixels by their shares: (B, 2, K)."""
    pairs_BKhw = (total_BKhw.square() - squares_BKhw) / 2
    # Products and sums rather than a contraction, which autocast would compute in half precision.
    sums = [(each * shares_Bhw[:, None]).sum((2, 3)) for each in (squares_BKhw, pairs_BKhw)]
    return torch.stack(sums, 1)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory is short; on the CPU it has no type of its own for that."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
