"""Batches for training: batch `i` depends on the seed and `i` only, whatever the number of workers and wherever a run begins.

A thread makes batches ahead, in this process or through `utseg.augment.workers`.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from utseg.augment.apply import apply_augmentation
from utseg.augment.draw import Augmentation, draw_augmentation
from utseg.augment.sampling import PatchSampler, SliceRef, draw_center
from utseg.augment.style import StyleSources
from utseg.augment.workers import LoaderProcesses
from utseg.errors import InputError
from utseg.planning.plan import Plan
from utseg.preprocess.neighbours import as_channels, shown_slices

if TYPE_CHECKING:
    from utseg.preprocess.slices import CaseRecord

BATCHES_AHEAD = 2
CACHE_BYTES = 2**29
VENDOR_COLUMN = "vendor"


@dataclass(frozen=True)
class Batch:
    """Patches of one training step: image (B, C, H, W) float32, label (B, H, W) uint8, names CASE/ZZZ, and the iteration's number."""

    image_BCHW: npt.NDArray[np.float32]
    label_BHW: npt.NDArray[np.uint8]
    names: tuple[str, ...]
    iteration: int


class SliceReader(Protocol):
    """What the loader needs of a SliceStore."""

    def read_slice(self, case_id: str, z: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """image (C, H, W), label (H, W)"""


class SliceCache:
    """Keeps decoded slices, read-only, until `limit_bytes` are full; every pass uses all slices, so the first ones stay."""

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


class SliceLoader:
    """Makes any batch of a run, or some rows of it."""

    def __init__(
        self,
        store: SliceReader,
        slices: Sequence[SliceRef],
        plan: Plan,
        *,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
        rows: range | None = None,
    ) -> None:
        self._rows = range(plan.batch_size) if rows is None else rows
        self._plan = plan
        self._sampler = PatchSampler(
            slices, foreground_fraction=plan.augmentation.foreground_fraction, seed=seed
        )
        self._cache = SliceCache(store, cache_bytes)
        self._sources = StyleSources(slices) if plan.augmentation.needs_partners else None

    def make_batch(self, iteration: int) -> Batch:
        """The batch of an iteration, or its rows that are this loader's."""
        plan, rows = self._plan, self._rows
        image_BCHW = np.empty((len(rows), plan.in_channels, *plan.patch_size), dtype=np.float32)
        label_BHW = np.empty((len(rows), *plan.patch_size), dtype=np.uint8)
        names = []
        for index, row in enumerate(rows):
            ref, foreground = self._sampler.choose(iteration * plan.batch_size + row)
            rng = self._sampler.rng(iteration, row)
            augmentation = draw_augmentation(rng, plan.augmentation)
            image, label = self._read(ref)
            image_BCHW[index], label_BHW[index] = apply_augmentation(
                augmentation,
                image,
                label,
                patch_size=plan.patch_size,
                center_yx=draw_center(rng, label, plan.patch_size, foreground),
                spacing_yx_mm=plan.preprocessing.spacing_yx_mm,
                style_CHW=self._style(ref, augmentation),
                slices=len(ref.shown),
                unit_C=plan.augmentation.intensity_unit,
            )
            names.append(ref.name)
        return Batch(image_BCHW, label_BHW, tuple(names), iteration)

    def _read(self, ref: SliceRef) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """The slice as the network is shown it (C, H, W), its neighbours among the channels, and its label (H, W)."""
        found = {z: self._cache.read_slice(ref.case_id, z) for z in dict.fromkeys(ref.shown)}
        return as_channels([found[z][0] for z in ref.shown]), found[ref.z][1]

    def _style(self, ref: SliceRef, augmentation: Augmentation) -> npt.NDArray[np.float32] | None:
        """The slice (C, H, W) whose style is to be taken, if one is."""
        if self._sources is None or not augmentation.takes_style:
            return None
        return self._read(self._sources.source(ref, augmentation.style_source))[0]


@contextmanager
def training_batches(
    store: SliceReader,
    records: Sequence["CaseRecord"],
    plan: Plan,
    *,
    seed: int,
    first_iteration: int,
    iterations: int,
    workers: int,
    rows: range | None = None,
    finish: Callable[[Batch], Batch] | None = None,
) -> Iterator[Iterator[Batch]]:
    """Gives an iterator over the batches `first_iteration` … `first_iteration + iterations − 1`, in order, made ahead in the background.

    `records` are of the training cases, in any order; `workers` processes make the batches, a thread of this one if 0; `rows` of each
    batch are made, where other processes train on the rest (None: all). `finish`: what is done to each batch, in the background too.

    Raises InputError where the cases have no slice; while iterating, WorkerError for a dead worker and ArtefactError for a damaged slice.
    On leaving, by whatever way, the workers are gone.
    """
    make_loader = partial(
        SliceLoader,
        store,
        list_slices(records, plan),
        plan,
        seed=seed,
        cache_bytes=CACHE_BYTES // max(1, workers),
        rows=rows,
    )
    with ExitStack() as running:
        if workers:
            processes = running.enter_context(
                closing(LoaderProcesses(make_loader, first_iteration, iterations, workers))
            )
            make, stop = processes.receive, processes.kill
        else:
            make, stop = make_loader().make_batch, None
        made = make if finish is None else lambda iteration: finish(make(iteration))
        yield running.enter_context(_made_ahead(made, first_iteration, iterations, stop=stop))


def list_slices(records: Sequence["CaseRecord"], plan: Plan) -> list[SliceRef]:
    """All slices with an annotation, in an order that does not depend on that of the records. None at all raises InputError."""
    slices = [
        SliceRef(
            record.case_id,
            z,
            tuple(number for number in each.labels if number > 0),
            tuple(shown_N.tolist()),
            record.subject,
            record.groups.get(VENDOR_COLUMN, ""),
        )
        for record in sorted(records, key=lambda record: record.case_id)
        for z, (each, shown_N) in enumerate(
            zip(record.slices, shown_slices(plan, len(record.slices), record.slice_distance_mm), strict=True)
        )
        if each.labels
    ]
    if not slices:
        raise InputError(
            f"training: none of the {len(records)} training cases has an annotated slice; annotate some"
        )
    return slices


@contextmanager
def _made_ahead(
    make: Callable[[int], Batch],
    first: int,
    count: int,
    *,
    stop: Callable[[], None] | None = None,
) -> Iterator[Iterator[Batch]]:
    """Calls `make` for each iteration in a thread, a few ahead of the reader. On leaving, `stop` is called and the thread waited for."""
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
        if stop is not None:
            stop()
        thread.shutdown(wait=True, cancel_futures=True)
