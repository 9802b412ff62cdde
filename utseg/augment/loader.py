"""Batches for training: batch `i` depends on the seed and `i` only, whatever the number of workers and wherever a run begins.

`SliceLoader` follows batchgenerators' loader protocol. Its MultiThreadedAugmenter is not used: it forks where that is the
default (this process has run OpenMP, which does not survive that), numbers batches by worker, and reports a dead worker
without saying which. Here a thread makes batches ahead, in this process or through `utseg.augment.workers`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase

from utseg.augment.apply import apply_augmentation
from utseg.augment.draw import Augmentation, draw_augmentation
from utseg.augment.partners import Partners
from utseg.augment.sampling import PatchSampler, SliceRef, draw_center
from utseg.augment.workers import LoaderProcesses
from utseg.errors import InputError
from utseg.planning.plan import Plan

if TYPE_CHECKING:
    from utseg.preprocess.slices import SliceStore

BATCHES_AHEAD = 2
CACHE_BYTES = 2**30
VENDOR_COLUMN = "vendor"


@dataclass(frozen=True)
class Batch:
    """Patches of one training step: image (B, C, H, W) float32, label (B, H, W) uint8, names CASE/ZZZ, and the iteration's number.

    Of a loader that makes some places of its batches only, B counts those.
    """

    image_BCHW: npt.NDArray[np.float32]
    label_BHW: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    iteration: int


class SliceReader(Protocol):
    """What the loader needs of a SliceStore."""

    def read_slice(self, case_id: str, z: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """image (C, H, W), label (H, W)"""


class SliceCache:
    """Keeps decoded slices, read-only, until `limit_bytes` are full.

    What came first stays: every pass deals all slices, so that none is worth more than another.
    """

    def __init__(self, store: SliceReader, limit_bytes: int) -> None:
        self._store = store
        self._free = limit_bytes
        self._slices: dict[tuple[str, int], tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]] = {}

    def read_slice(self, case_id: str, z: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """image (C, H, W) float32, label (H, W) uint8, not writeable."""
        key = case_id, z
        if key not in self._slices:
            image, label = self._store.read_slice(case_id, z)
            image.flags.writeable = label.flags.writeable = False
            size = image.nbytes + label.nbytes
            if size > self._free:
                return image, label
            self._free -= size
            self._slices[key] = image, label
        return self._slices[key]


class SliceLoader(SlimDataLoaderBase):
    """Makes batches; `next(loader)` gives the one of `loader.iteration` and steps on. Setting `iteration` jumps to any batch."""

    def __init__(
        self,
        store: SliceReader,
        slices: Sequence[SliceRef],
        plan: Plan,
        *,
        seed: int,
        iteration: int = 0,
        cache_bytes: int = CACHE_BYTES,
        places: range | None = None,
    ) -> None:
        super().__init__(store, plan.batch_size)
        self._places = range(plan.batch_size) if places is None else places
        self.iteration = iteration
        self._plan = plan
        self._sampler = PatchSampler(
            slices, foreground_fraction=plan.augmentation.foreground_fraction, seed=seed
        )
        self._cache = SliceCache(store, cache_bytes)
        self._partners = Partners(slices) if plan.augmentation.needs_partners else None

    def generate_train_batch(self) -> Batch:
        """The batch of `iteration`, or its places that are this loader's."""
        plan, iteration, places = self._plan, self.iteration, self._places
        image_BCHW = np.empty((len(places), plan.in_channels, *plan.patch_size), dtype=np.float32)
        label_BHW = np.empty((len(places), *plan.patch_size), dtype=np.uint8)
        names = []
        for row, place in enumerate(places):
            ref, foreground = self._sampler.deal(iteration * plan.batch_size + place)
            rng = self._sampler.rng(iteration, place)
            augmentation = draw_augmentation(rng, plan.augmentation)
            image, label = self._cache.read_slice(ref.case_id, ref.z)
            image_BCHW[row], label_BHW[row] = apply_augmentation(
                augmentation,
                image,
                label,
                patch_size=plan.patch_size,
                center_yx=draw_center(rng, label, plan.patch_size, foreground),
                spacing_yx_mm=plan.preprocessing.spacing_yx_mm,
                partner_CHW=self._partner(ref, augmentation),
            )
            names.append(ref.name)
        self.iteration += 1
        return Batch(image_BCHW, label_BHW, tuple(names), iteration)

    def _partner(self, ref: SliceRef, augmentation: Augmentation) -> npt.NDArray[np.float32] | None:
        """The slice (C, H, W) whose look is to be taken, if one is."""
        if self._partners is None or not augmentation.needs_partner:
            return None
        partner = self._partners.of(ref, augmentation.partner)
        return self._cache.read_slice(partner.case_id, partner.z)[0]


@contextmanager
def training_batches(
    store: "SliceStore",
    case_ids: Sequence[str],
    plan: Plan,
    *,
    seed: int,
    first_iteration: int,
    iterations: int,
    workers: int,
    places: range | None = None,
) -> Iterator[Iterator[Batch]]:
    """Gives an iterator over the batches `first_iteration` … `first_iteration + iterations − 1`, in order, made ahead in the background.

    Args:
        store: the preprocessed slices.
        case_ids: the training cases, in any order.
        plan: patch and batch size, augmentation, spacing.
        seed: not negative.
        first_iteration: the number of the first batch; a resumed run passes the number it has to go on with.
        iterations: how many batches.
        workers: processes that make batches; 0 makes them in a thread of this one.
        places: which patches of each batch to make, where others make the rest; all by default.

    Raises InputError where the cases have no slice; while iterating, WorkerError for a dead worker and ArtefactError for a damaged slice.
    On leaving, by whatever way, the workers are gone.
    """
    slices = list_slices(store, case_ids)
    if workers == 0:
        loader = SliceLoader(store, slices, plan, seed=seed, iteration=first_iteration, places=places)
        with _made_ahead(lambda iteration: next(loader), first_iteration, iterations) as batches:
            yield batches
        return
    make_loader = _LoaderRecipe(store, slices, plan, seed, CACHE_BYTES // workers, places)
    with (
        LoaderProcesses(make_loader, first_iteration, iterations, workers) as processes,
        _made_ahead(processes.receive, first_iteration, iterations, stop=processes.kill) as batches,
    ):
        yield batches


def list_slices(store: "SliceStore", case_ids: Sequence[str]) -> list[SliceRef]:
    """All slices of the cases, in an order that does not depend on that of `case_ids`. None at all raises InputError."""
    slices = [
        SliceRef(
            case_id,
            z,
            tuple(int(value) for value in each.labels if value > 0),
            record.subject,
            record.groups.get(VENDOR_COLUMN, ""),
        )
        for case_id in sorted(set(case_ids))
        for record in [store.case_record(case_id)]
        for z, each in enumerate(record.slices)
    ]
    if not slices:
        raise InputError(
            f"training: none of the {len(case_ids)} training cases has a preprocessed slice; run utseg_plan_and_preprocess"
        )
    return slices


@dataclass(frozen=True)
class _LoaderRecipe:
    """How a worker makes its loader; picklable."""

    store: SliceReader
    slices: list[SliceRef]
    plan: Plan
    seed: int
    cache_bytes: int
    places: range | None

    def __call__(self) -> SliceLoader:
        return SliceLoader(
            self.store,
            self.slices,
            self.plan,
            seed=self.seed,
            cache_bytes=self.cache_bytes,
            places=self.places,
        )


@contextmanager
def _made_ahead(
    make: Callable[[int], Batch],
    first: int,
    count: int,
    *,
    stop: Callable[[], None] = lambda: None,
) -> Iterator[Iterator[Batch]]:
    """Calls `make` for each iteration in one thread, a few ahead of the reader. On leaving, `stop` is called and the thread waited for."""
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    under_way: deque[Future[Batch]] = deque()

    def batches() -> Iterator[Batch]:
        for iteration in range(first, first + count):
            under_way.append(thread.submit(make, iteration))
            if len(under_way) > BATCHES_AHEAD:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    try:
        yield batches()
    finally:
        stop()
        thread.shutdown(wait=True, cancel_futures=True)
