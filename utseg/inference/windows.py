"""Class probabilities of volumes that are already preprocessed, volume by volume, in batches of windows.

A batch never holds windows of two volumes: convolutions of other batch sizes differ in the last bits, and what a volume gets must not
depend on its neighbours, which are others after `--resume`, or in a part of the cases. They differ by the number of threads too, which is
noted for each batch.

Every network sees windows of the patch size. A slice smaller than the patch is padded evenly with its own minimum, as in training; one
that is hardly larger is taken whole; any other is covered by windows that overlap and are joined with Gaussian weights, or seen through the
one window that shows all structures (`focus.py`). A network may be shown several views of a window (`views.py`): its probabilities of each
pixel are their mean, each counting as much as it saw of the pixel. What members agree on is summed up by window, with the same weights,
while their probabilities are there: none is kept. Nothing is resampled or normalised here, and no file is read or written.

Axes: B batch, C channels, K classes, Z slices, Y rows, X columns; h, w: rows and columns of a window (`grid.py`: where they lie).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from utseg.compute.threads import Threads
from utseg.device import Precision, computing_in, to_device
from utseg.errors import UtsegError
from utseg.inference.agreement import Agreement
from utseg.inference.focus import cuts_largest, find_focus, looked_at, shows_whole
from utseg.inference.grid import (
    FIRST_STEP,
    Grid,
    beside,
    cut,
    gaussian_weights,
    overlap,
    shares,
    weight_sum,
    window_grid,
)
from utseg.inference.views import Pixels, View, coverage

logger = logging.getLogger("utseg")

Array = NDArray[np.float32]
AS_IT_IS = (View(),)
CPU_BATCH_PIXELS = 256 * 256
"""Larger batches leave the processor's cache: UTNet takes .19 s a slice of 256² one at a time, .27 s four at a time (two cores)."""
LARGEST_BATCH = 16


@dataclass(frozen=True)
class PredictedVolume:
    """Mean class probabilities (K, Z, Y, X) float32, and the agreement of the members: networks times views.

    `threads`: of each batch of windows, on which the last bits depend.
    """

    probabilities_KZYX: Array
    agreement: Agreement
    threads: tuple[int, ...]


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
    device: torch.device,
    step_size: float,
    focus: bool = False,
    precision: Precision = "float32",
    views: Sequence[View] = AS_IT_IS,
    threads: Threads | None = None,
    regions: bool = False,
    cines: Iterable[str | None] | None = None,
) -> Iterator[PredictedVolume]:
    """For each image (C, Z, Y, X) its class probabilities (K, Z, Y, X), float32, and the members' agreement, in the order of the images.

    The mean of the softmax (`regions`: of the sigmoid) over all networks and over all `views`, of which at least one sees the whole window.
    The networks are on `device`; they are in evaluation mode while the iterator lives, and as they were after it. Images are asked for one
    by one: what is held at a time does not grow with their number, nor with the number of networks beyond their weights.
    focus: a first look at every third slice finds the one window that shows all structures (`focus.py`), and beside it all is background;
    where it finds none, or that one cuts the largest, windows are everywhere. cines: what each image is a frame of, None: of nothing;
    frames of one cine that follow each other share the window of the first, until a structure reaches its rim. precision: what the networks
    compute in; the rest is float32.
    threads: gives each batch its number of them; None: as many as there are now.
    Out of memory halves the batch and goes on; on a GPU that cannot hold one window it goes on on the CPU. The log says so.
    """
    threads = threads or Threads("prediction", adapts=False)
    forward = _Forward(networks, device, batch_size, views, precision, regions)
    modes = [network.training for network in networks]
    patch_yx = patch_size[0], patch_size[1]
    try:
        for network in networks:
            network.eval()
        shared: tuple[str | None, Grid | None] = None, None
        for image_CZYX, cine in zip(images, repeat(None) if cines is None else cines, strict=False):
            grid = window_grid(image_CZYX.shape[2:], patch_yx, step_size)
            if focus and len(grid.starts_yx) > 1:
                known = shared[1] if cine is not None and cine == shared[0] else None
                found, shown = _focused(forward, image_CZYX, grid, num_classes, threads, known)
                shared = cine, shown
            else:
                found = _predict(forward, image_CZYX, grid, num_classes, threads)
            yield found
    finally:
        for network, training in zip(networks, modes, strict=True):
            network.train(training)
            network.to(device)


def _focused(
    forward: "_Forward",
    image_CZYX: Array,
    everywhere: Grid,
    num_classes: int,
    threads: Threads,
    known: Grid | None,
) -> tuple[PredictedVolume, Grid | None]:
    """Through the one window, the same on all slices, that shows what a first look saw; everywhere where one does not show it, or where
    what is largest turns out to reach the window's rim, as a heart that is larger on slices between those of the first look.

    known: the window of the frame before, in place of a first look. Also returns the window, None where it may not show all of the next
    frame.
    """
    before: tuple[int, ...] = ()
    if known is not None:
        found = _predict(forward, image_CZYX, known, num_classes, threads)
        if shows_whole(found.probabilities_KZYX[0], known.starts_yx[0], known.window_yx):
            return found, known
        before = found.threads
    first = window_grid(everywhere.slice_yx, everywhere.window_yx, FIRST_STEP)
    seen = _predict(forward, image_CZYX[:, looked_at(image_CZYX.shape[1])], first, num_classes, threads)
    start_yx = find_focus((seen.probabilities_KZYX[0] < 0.5).mean(0), first.window_yx)
    used = before + seen.threads
    if start_yx is not None:
        grid = replace(first, starts_yx=(start_yx,))
        found = _predict(forward, image_CZYX, grid, num_classes, threads)
        used += found.threads
        shown = found.probabilities_KZYX[0], start_yx, grid.window_yx
        if shows_whole(*shown):
            return replace(found, threads=used), grid
        if not cuts_largest(*shown):
            return replace(found, threads=used), None
    found = _predict(forward, image_CZYX, everywhere, num_classes, threads)
    return replace(found, threads=used + found.threads), None


def _predict(
    forward: "_Forward", image_CZYX: Array, grid: Grid, num_classes: int, threads: Threads
) -> PredictedVolume:
    _, slices, height, width = image_CZYX.shape
    several = len(grid.starts_yx) > 1
    sum_KZYX = np.zeros((num_classes, slices, height, width), np.float32)
    agreement_2K = np.zeros((2, num_classes))
    margin_yx = forward.margin_yx(grid.window_yx)
    windows = [(z, start_yx) for z in range(slices) for start_yx in grid.starts_yx]
    used = []
    done = 0
    while done < len(windows):
        batch = windows[done : done + forward.batch_size]
        parts = [cut(image_CZYX[:, z], grid, start_yx, margin_yx) for z, start_yx in batch]
        shares_Bhw = np.stack([shares(grid, start_yx) for _, start_yx in batch])
        with threads.timed(shares_Bhw.size) as number:
            found = forward(np.stack(parts, dtype=np.float32), shares_Bhw)
        if found is None:
            continue
        used.append(number)
        done += len(batch)
        for (z, start_yx), probabilities_Khw, sums_2K in zip(batch, *found, strict=True):
            on_slice, in_window = overlap(grid, start_yx)
            weights = gaussian_weights(grid.window_yx)[in_window] if several else 1
            sum_KZYX[:, z, *on_slice] += probabilities_Khw[:, *in_window] * weights
            agreement_2K += sums_2K
    if several:
        sum_KZYX /= weight_sum(grid)
    beside_YX = beside(grid)
    sum_KZYX[0][:, beside_YX] = 1  # all members take what no window shows for background
    pairs = forward.members * (forward.members - 1) / 2
    agreement_2K[:, 0] += np.array([forward.members, pairs]) * beside_YX.sum() * slices
    return PredictedVolume(sum_KZYX, Agreement(forward.members, *agreement_2K), tuple(used))


@dataclass
class _Forward:
    """Mean probabilities of a batch and sums over its members, whatever memory allows: `batch_size`, `device` shrink when it runs out."""

    networks: Sequence[nn.Module]
    device: torch.device
    batch_size: int
    views: Sequence[View]
    precision: Precision
    regions: bool

    @property
    def members(self) -> int:
        return len(self.networks) * len(self.views)

    def margin_yx(self, window_yx: Pixels) -> Pixels:
        """What the views look at beside a window, on each side."""
        ys, xs = zip(*(view.margin_yx(window_yx) for view in self.views), strict=True)
        return max(ys), max(xs)

    def __call__(self, batch_BCHW: Array, shares_Bhw: Array) -> tuple[Array, Array] | None:
        """Mean probabilities (B, K, h, w) of windows with margin, and what `_agreement_sums` says of each window and class (B, 2, K).

        None where memory was short and a smaller batch may be tried.
        """
        try:
            return self._mean_probabilities(batch_BCHW, shares_Bhw)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            reason = error.with_traceback(None)  # its frames hold the memory of the failed attempt
        self._shrink(len(batch_BCHW), reason)
        return None

    @torch.inference_mode()
    def _mean_probabilities(self, batch_BCHW: Array, shares_Bhw: Array) -> tuple[Array, Array]:
        x_BCHW = to_device(batch_BCHW, self.device).contiguous(memory_format=torch.channels_last)
        window_yx = (shares_Bhw.shape[1], shares_Bhw.shape[2])
        sums = _MemberSums()
        for network in self.networks:
            main_logits = cast(Callable[[Tensor], Tensor], network.main_logits)
            for view in self.views:
                with computing_in(self.precision, self.device):
                    logits_BKhw = main_logits(view.show(x_BCHW, window_yx))
                logits_BKhw = logits_BKhw.float()
                activated_BKhw = logits_BKhw.sigmoid() if self.regions else logits_BKhw.softmax(1)
                sums.add(
                    view.restore(activated_BKhw), coverage(view, window_yx) if view.rotation_deg else None
                )
        total_BKhw, squares_BKhw = sums.result()
        sums_B2K = _agreement_sums(total_BKhw, squares_BKhw, to_device(shares_Bhw, self.device))
        if self.members > 1:
            total_BKhw = total_BKhw / self.members
        return total_BKhw.cpu().numpy(), sums_B2K.cpu().numpy()

    def _shrink(self, tried: int, reason: RuntimeError) -> None:
        """Makes the next attempt smaller: half the batch, then the CPU. Raises UtsegError where that is not enough."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tried > 1:
            self.batch_size = tried // 2
            words = "out of memory with %d slices at a time on %s: going on with %d"
            logger.warning(words, tried, self.device, self.batch_size)
        elif self.device.type != "cpu":
            logger.warning("%s has not the memory for one slice: going on on the CPU, slowly", self.device)
            self.device = torch.device("cpu")
            for network in self.networks:
                network.to(self.device)
        else:
            raise UtsegError(
                "not enough memory to predict one slice; close other programs or use a machine with more"
            ) from reason


class _MemberSums:
    """Σ_i p_i and Σ_i p_i² of members that see the same windows (B, K, h, w), some of them only c_i of a pixel (then p_i sums to c_i).

    Such a member is taken to say of the rest what all say in the mean: q_i = p_i + (1 − c_i)·m with m = Σ p_i / Σ c_i, which is the mean
    of all q_i too. Σ q_i² = Σ p_i² + 2·m·Σ (1 − c_i)·p_i + m²·Σ (1 − c_i)².
    """

    def __init__(self) -> None:
        self._members = 0
        self._total: Tensor | None = None
        self._squares: Tensor | None = None
        self._unseen: Tensor | None = None
        self._gaps: list[Array] = []

    def add(self, p_BKhw: Tensor, coverage_hw: Array | None) -> None:
        """Takes in the next member. `coverage_hw`: how much of each pixel it saw, None for all of all."""
        self._members += 1
        if coverage_hw is not None:
            gap_hw = 1 - coverage_hw
            unseen = p_BKhw * to_device(gap_hw, p_BKhw.device)
            self._unseen = unseen if self._unseen is None else self._unseen.add_(unseen)
            self._gaps.append(gap_hw)
        squares = self._squares
        self._squares = p_BKhw.square() if squares is None else squares.addcmul_(p_BKhw, p_BKhw)
        self._total = p_BKhw if self._total is None else self._total.add_(p_BKhw)

    def result(self) -> tuple[Tensor, Tensor]:
        """Σ_i q_i and Σ_i q_i²; without turned views these are Σ_i p_i and Σ_i p_i²."""
        total, squares = self._total, self._squares
        assert total is not None and squares is not None, "at least one network"
        if self._unseen is None:
            return total, squares
        gaps_hw, square_gaps_hw = (
            to_device(each.sum(0), total.device) for each in (np.stack(self._gaps), np.square(self._gaps))
        )
        mean = total / (self._members - gaps_hw)
        squares = squares + 2 * mean * self._unseen + mean.square() * square_gaps_hw
        return mean * self._members, squares


def _agreement_sums(total_BKhw: Tensor, squares_BKhw: Tensor, shares_Bhw: Tensor) -> Tensor:
    """Of each window and class Σ Σ_i p_i² and Σ Σ_{i<j} p_i·p_j = Σ ((Σ_i p_i)² − Σ_i p_i²) / 2, pixels by their shares: (B, 2, K)."""
    pairs_BKhw = (total_BKhw.square() - squares_BKhw) / 2
    # Products and sums rather than a contraction, which autocast would compute in half precision.
    sums = [(each * shares_Bhw[:, None]).sum((2, 3)) for each in (squares_BKhw, pairs_BKhw)]
    return torch.stack(sums, 1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory is short; the CPU and the libraries of a GPU have no type of their own for that."""
    words = ("can't allocate memory", "ALLOC_FAILED", "error: out of memory", "MPS backend out of memory")
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in words)
