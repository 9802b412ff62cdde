"""Track each case of a prediction (there already, failed, written), and write the record of it.

The record is written while the work goes on, so that a run that is killed loses little; what is on no record is made again. Nothing is
read, predicted or restored here.
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utseg.case import Case
from utseg.compute.threads import changes
from utseg.errors import CaseErrors, UtsegError, listing, number_of
from utseg.files import seen_from
from utseg.notices import Notice, notice_lines
from utseg.planning.plan import Preprocessing
from utseg.predict.overlays import OVERLAYS_FOLDER, OverlayJob, overlay_path
from utseg.predict.parts import Part, join_parts, recorded_cases, remove_part_records, shares
from utseg.predict.record import (
    ENTROPY_FOLDER,
    PredictedCase,
    PredictionRecord,
    forget_quality,
    is_kept,
    report_flagged,
    report_quality,
    seen_in_training,
    write_record,
)
from utseg.predict.stages import (
    PROBABILITIES_SUFFIX,
    Outputs,
    Restored,
    Volume,
    entropy_name,
    write_case,
)
from utseg.quality import QUALITY_FILE, with_orientation, worst_of_frames
from utseg.rawdata.gate import frames_of
from utseg.rawdata.names import mask_name
from utseg.rawdata.ways import AS_IT_LIES

logger = logging.getLogger("utseg")
SHARE_OF_RECORDS = 0.02
"""Of the time, which goes into writing the record again and again: it grows with the number of cases."""


@dataclass
class _CaseState:
    """What is known of one case so far. `done`: its finished volumes by frame, until all of a cine are there."""

    frames: int
    failed: bool = False
    done: dict[int, Restored] = field(default_factory=dict)


class PredictionRun:
    """What became of each case, and `prediction.json`, or the record of a part of the cases."""

    def __init__(
        self,
        outputs: Outputs,
        provenance: PredictionRecord,
        cases: Sequence[Case],
        part: Part | None = None,
        trained: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """provenance: the record without cases. cases: all of them, of which this run may have a part only.

        trained: the scans that each model trained on, by its name.
        """
        self._trained = trained or {}
        self.output = outputs.folder
        self.outputs = outputs
        self.provenance = provenance
        self.part = part
        self.kept: list[Case] = []
        self.problems: list[str] = []
        self._shares = [{case.case_id for case in cases}] if part is None else shares(cases, part.count)
        self._wanted = self._shares[0 if part is None else part.number - 1]
        self.cases = [case for case in cases if case.case_id in self._wanted]
        self._recorded: dict[str, PredictedCase] = {}
        self._states: dict[str, _CaseState] = {}
        self._notices: list[Notice] = []
        self._turned: list[str] = []
        self._doubted: list[str] = []
        self._next_record = 0.0

    @property
    def folders(self) -> dict[Path, bool]:
        """Those that a prediction may write to, and whether this one does."""
        return {
            self.output: True,
            self.output / OVERLAYS_FOLDER: self.outputs.overlays,
            self.output / ENTROPY_FOLDER: self.outputs.entropy,
        }

    def start(self, resume: bool) -> list[Case]:
        """The cases to predict; the others are kept. What is on record of other cases by the same models stays on record."""
        recorded = recorded_cases(self.output, self.provenance)
        if self.part is not None:
            recorded = {case_id: entry for case_id, entry in recorded.items() if case_id in self._wanted}
        if resume:
            self.kept = [case for case in self.cases if self._is_kept(case, recorded)]
        kept = {case.case_id for case in self.kept}
        todo = [case for case in self.cases if case.case_id not in kept]
        if resume and any(self._mask(case).exists() for case in self.cases):
            logger.info("%s there and verified, %d to be made", number_of(len(kept), "mask"), len(todo))
        for case in todo:
            recorded.pop(case.case_id, None)
        for case in self.kept:
            recorded[case.case_id] = recorded[case.case_id].model_copy(update={"images": self._images(case)})
        self._recorded = recorded
        if todo:
            forget_quality(recorded, self.provenance.labels, self.output)
        return todo

    def _mask(self, case: Case) -> Path:
        return self.output / mask_name(case.case_id, case.images[0].name)

    def _images(self, case: Case) -> tuple[str, ...]:
        return tuple(seen_from(self.output, image) for image in case.images)

    def _is_kept(self, case: Case, recorded: Mapping[str, PredictedCase]) -> bool:
        needed = [self._mask(case).name, *((PROBABILITIES_SUFFIX,) if self.outputs.probabilities else ())]
        return is_kept(case, recorded, self.output, needed, self.outputs.entropy)

    def volumes(self, cases: Sequence[Case], preprocessings: tuple[Preprocessing, ...]) -> Iterator[Volume]:
        """A volume for each case, or for each frame of a cine. Reads headers only; a case with an unusable one has failed."""
        for case in cases:
            frames = 1
            if case.images[0].exists():  # else the gate says what is missing
                try:
                    frames = frames_of(case)
                except UtsegError as error:
                    self.fail(case, UtsegError(f"case {case.case_id}: {error}"))
                    continue
            self._states[case.case_id] = _CaseState(frames)
            for frame in range(frames):
                yield Volume(case, frame if frames > 1 else case.frame, frames, preprocessings)

    @property
    def number_done(self) -> int:
        """Cases of this run whose masks are there, kept ones included."""
        return len(self._recorded.keys() & self._wanted)

    def has_failed(self, case: Case) -> bool:
        return self._states[case.case_id].failed

    def fail(self, case: Case, error: UtsegError) -> None:
        """Notes why a case cannot be predicted, which `masks` raises when the others are done."""
        state = self._states.setdefault(case.case_id, _CaseState(1))
        if state.failed:
            return
        state.failed = True
        state.done.clear()
        self.problems += error.lines()

    def add(self, restored: Restored) -> bool:
        """Takes in a finished volume; says whether its case is done. The last one of a cine has its mask written, or raises UtsegError."""
        volume = restored.source.volume
        state = self._states[volume.case.case_id]
        if state.failed:
            return False
        state.done[volume.frame or 0] = restored
        if len(state.done) < state.frames:
            return False
        frames = [state.done[frame] for frame in sorted(state.done)]  # they finish in any order
        state.done.clear()
        self._add_case(volume.case, frames)
        if time.monotonic() > self._next_record and not self._wanted <= self._recorded.keys():
            try:
                self._write_record()
            except UtsegError as error:  # it is written again in the end
                logger.warning("%s", error)
        return True

    def _add_case(self, case: Case, frames: Sequence[Restored]) -> None:
        """Notes a finished case; of a cine, writes mask and entropy."""
        files = {name: checksum for frame in frames for name, checksum in frame.files.items()}
        first = frames[0].source
        if len(frames) > 1:
            entropies = [frame.entropy_ZYX for frame in frames if frame.entropy_ZYX is not None]
            entropy = np.stack(entropies) if entropies else None
            mask = np.stack([frame.mask_ZYX for frame in frames])
            files |= write_case(self.output, case, mask, entropy, first.geometry)
        doubts = [each.orientation_doubt for each in first.properties]
        if any(doubts):
            self._doubted.append(case.case_id)
        elif any(each.arrangement != AS_IT_LIES for each in first.properties):
            self._turned.append(case.case_id)
        notices = [notice for frame in frames for notice in frame.source.warnings]
        self._notices += notices
        scans = tuple(scan for frame in frames for scan in frame.source.scans)
        known_by = {*scans, *first.inputs.values()}
        self._recorded[case.case_id] = PredictedCase(
            images=self._images(case),
            inputs=first.inputs,
            frame=case.frame,
            frames=len(frames),
            files=dict(sorted(files.items())),
            warnings=tuple(dict.fromkeys(map(str, notices))),
            quality=with_orientation(worst_of_frames([frame.quality for frame in frames]), doubts),
            scans=scans,
            trained_by=tuple(sorted(name for name, seen in self._trained.items() if known_by & seen)),
            threads=tuple(changes((number for frame in frames for number in frame.threads), 1)),
        )
        if not self.outputs.entropy:
            (self.output / entropy_name(case.case_id)).unlink(missing_ok=True)  # of an earlier mask
        overlay_path(self.output, case.case_id).unlink(missing_ok=True)  # of an earlier mask

    def overlay_jobs(self, case: Case) -> Iterator[OverlayJob]:
        """The picture of a case whose mask is there, where pictures are wanted."""
        if self.outputs.overlays:
            mask = self._mask(case)
            checksum = self._recorded[case.case_id].files[mask.name]
            yield OverlayJob(case, mask, checksum, self.provenance.labels)

    def _write_record(self) -> None:
        """As far as it is known."""
        began = time.monotonic()
        record = self.provenance.model_copy(update={"cases": dict(sorted(self._recorded.items()))})
        if self.part is None:
            write_record(record, self.output)
            remove_part_records(self.output)  # it says what they say
        else:
            failed = sorted(case_id for case_id, state in self._states.items() if state.failed)
            record = record.model_copy(update={"failed": tuple(failed)})
            write_record(record, self.output, self.part.record_name)
        now = time.monotonic()
        self._next_record = now + (now - began) / SHARE_OF_RECORDS

    def close(self) -> None:
        """Writes what is known now and says which files are odd, and which masks should be looked at.

        What cannot be written is a problem beside those of the cases: this may run after another error, and does not hide it.
        """
        for line in notice_lines(self._notices):
            logger.warning("%s", line)
        self._report_orientation()
        if seen := seen_in_training(self._recorded, self._wanted):
            logger.warning("%s", seen)
        for write in (self._report_quality, self._write_record):  # what is on record is done
            try:
                write()
            except UtsegError as error:
                self.problems += error.lines()

    def _report_quality(self) -> None:
        if self.part is None:
            report_quality(self._recorded, self.provenance.labels, self._wanted, self.output)
        else:
            report_flagged(self._recorded, self._wanted, self.output)

    def _report_orientation(self) -> None:
        """One line for the scans that were turned, one for those of which that may be wrong."""
        if self._turned:
            names = listing(sorted(self._turned))
            scans = number_of(len(self._turned), "scan")
            logger.info("%s turned to lie as the training scans do: %s", scans, names)
        if self._doubted:
            names = listing(sorted(self._doubted))
            text = "orientation: %d scans may lie otherwise than the training scans: %s (%s says why)"
            logger.warning(text, len(self._doubted), names, self.output / QUALITY_FILE)

    def join(self) -> None:
        """Of a part that has given the folder back: joins its record with the others' if it was the last. Raises UtsegError."""
        if self.part is not None:
            join_parts(self.output, self.provenance, self._shares, list(self.folders))

    def masks(self) -> list[Path]:
        """The masks' paths. Raises CaseErrors where some could not be made."""
        if self.problems:
            raise CaseErrors(self.problems)
        logger.info("%s in %s", number_of(len(self.cases), "mask"), self.output)
        return [self._mask(case) for case in self.cases]
