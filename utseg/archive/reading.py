"""Reads a zip that a stranger made: names, kinds and sizes are checked before a file is opened, then checksums, records and weights.

A network is looked up by its registered name and built without memory for its values; what is in the archive is never imported or run.
"""

import hashlib
import io
import json
import math
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from utseg.archive.manifest import (
    CARD_FILE,
    FORMAT,
    MANIFEST_FILE,
    SUMMARY,
    UNSHOWABLE,
    Manifest,
    Scores,
    as_json,
    text_problem,
)
from utseg.errors import ArtefactError, InputError, SettingError, UtsegError
from utseg.files import atomic_path, require_no_broken_link, write_bytes
from utseg.home import split_plan_name
from utseg.label_map import LARGEST_LABEL, has_regions, values_of
from utseg.planning.task import planned_task
from utseg.postprocess import check_labels
from utseg.predict.model import weights_problems
from utseg.rawdata.names import name_problem
from utseg.selection.record import BEST_FILE, Best, best_augmentation
from utseg.settings import Model, tree_nodes, validate
from utseg.training.record import RUN_FILE, WEIGHTS_FILE, RunRecord, read_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

IMPORTED_FILE = "imported.json"
MEMBERS = 400  # a hundred runs
SMALL_BYTES = 4 << 20  # JSON, the card, the header of weights
WEIGHTS_BYTES = 2 << 30
RATIO = 100
RATIO_FROM_BYTES = 1 << 20
CHUNK = 1 << 20
PARAMETERS = 4_000  # tensors; the largest network here has some hundreds
LARGEST_SETTING = 1 << 13
LONGEST_SETTING = 256
LONGEST_MESSAGE = 600
PICKLES = (b"PK\x03\x04", b"\x80")  # torch.save writes a zip of pickles
DAMAGE = (
    *(UtsegError, zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError),
    *(ValueError, OverflowError, MemoryError, KeyError, TypeError),
)  # what zipfile, json and safetensors raise for damaged and hostile files


@dataclass(frozen=True)
class Archive:
    """An open zip whose list of files has been checked. `shown` is what messages call it."""

    shown: str
    container: zipfile.ZipFile
    files: dict[str, zipfile.ZipInfo]
    manifest: Manifest

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a file. Raises InputError at the end where they are not what the manifest says."""
        digest = hashlib.sha256()
        with refusal(f"{self.shown}: {name}"):
            for data in _pieces(self.container, name):
                digest.update(data)
                yield data
            expected = self.manifest.files[name]
            if (self.files[name].file_size, digest.hexdigest()) != (expected.size, expected.sha256):
                raise ValueError("its size or checksum is not that of the manifest")

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        return b"".join(self.pieces(name))


def _pieces(container: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """Piece by piece, or zipfile would unpack a bomb whole before it looks at its size."""
    with container.open(name) as file:
        while data := file.read(CHUNK):
            yield data


@contextmanager
def refusal(shown: str) -> Iterator[None]:
    """Whatever a stranger's file makes Python raise becomes an InputError of one short line that a terminal can show."""
    try:
        yield
    except DAMAGE as error:
        text = str(error) or type(error).__name__
        if not isinstance(error, UtsegError):
            text = f"{shown}: damaged or not part of an archive of a model ({text}); get the archive again"
        raise InputError(UNSHOWABLE.sub("?", text.replace("\n", " "))[:LONGEST_MESSAGE]) from None


class _BoundedReader(io.BufferedReader):
    """Python's zipfile reads the whole list of files at once; one that is longer than a chunk is no list of a model's."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > CHUNK:
            raise zipfile.BadZipFile("more files are listed in it than a model has, as in an archive bomb")
        return super().read(size)


@contextmanager
def open_archive(path: Path, shown: str | None = None) -> Iterator[Archive]:
    """Opens a zip and reads its manifest. Raises InputError, one line, where it is none, is damaged, or has files that are no member's."""
    shown = shown or str(path)
    if not require_no_broken_link(path).is_file():
        raise InputError(f"{shown}: no such file; expected an archive that utseg_export_model wrote")
    with ExitStack() as stack:
        with refusal(shown):
            file = stack.enter_context(_BoundedReader(io.FileIO(path)))
            container = stack.enter_context(zipfile.ZipFile(file))
            infos = container.infolist()
            if problem := _listing_problem(infos, path.stat().st_size):
                raise InputError(f"{shown}: {problem}; such an archive is not imported")
            files = {info.filename: info for info in infos}
            if MANIFEST_FILE not in files:
                raise InputError(
                    f"{shown}: has no {MANIFEST_FILE}; expected an archive that utseg_export_model wrote"
                )
            manifest = _parse(
                Manifest, b"".join(_pieces(container, MANIFEST_FILE)), f"{shown}: {MANIFEST_FILE}"
            )
            if problem := _member_problem(manifest, files):
                raise InputError(f"{shown}: {problem}; such an archive is not imported")
        yield Archive(shown, container, files, manifest)


def _listing_problem(infos: list[zipfile.ZipInfo], size: int) -> str | None:
    if len(infos) > MEMBERS:
        return f"{len(infos)} files are listed in it, more than the {MEMBERS} of an archive of models, as in an archive bomb"
    if len({info.filename for info in infos}) < len(infos):
        return "the name of a file is there more than once"
    for info in infos:
        name, kind = info.orig_filename[:200], stat.S_IFMT(info.external_attr >> 16)
        limit = WEIGHTS_BYTES if info.filename.endswith(f"/{WEIGHTS_FILE}") else SMALL_BYTES
        for part in info.orig_filename.split("/"):
            if problem := name_problem(part):
                return f"the name {name!r} is not allowed: {part[:100]!r} {problem}"
        if kind not in (0, stat.S_IFREG):
            return f"{name!r} is a link, folder or device, not a plain file"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{name!r} is packed by method {info.compress_type}; expected stored or deflated"
        if info.file_size > limit:
            return f"{name!r} has {info.file_size} bytes where at most {limit} are expected"
        if info.file_size > max(RATIO_FROM_BYTES, RATIO * info.compress_size):
            return (
                f"{name!r} unpacks from {info.compress_size} bytes to {info.file_size}, as in an archive bomb"
            )
    if sum(info.compress_size for info in infos) > size:
        return "its files overlap, as in an archive bomb"
    if infos and min(info.header_offset for info in infos) > 0:
        return "something stands before its first file"
    return None


def _member_problem(manifest: Manifest, files: dict[str, zipfile.ZipInfo]) -> str | None:
    names = [member.name.split("/") for member in manifest.members]
    parts = {"/".join(name[:depth]) for name in names for depth in (1, 2, 3)}
    if len({part.casefold() for part in parts}) < len(parts) or len({*map(tuple, names)}) < len(names):
        return "two members have one name, or differ by letter case only"
    expected = manifest.expected_files
    for where, found in (("manifest", {*manifest.files}), ("archive", {*files} - {MANIFEST_FILE})):
        for name in sorted(expected ^ found):
            problem = "is missing from" if name in expected else "belongs to no member, but is in"
            return f"{name!r} {problem} the {where}"
    return None


def unpack(archive: Archive, folder: Path) -> None:
    """Writes all runs, the best.json that chose them, and beside each model its card and manifest, below `folder`.

    Raises InputError where something is unsound.
    """
    card = archive.read(CARD_FILE)
    with refusal(f"{archive.shown}: {CARD_FILE}"):
        if problem := text_problem(card.decode()):
            raise ValueError(f"{problem} is in it")
    for member in archive.manifest.members:
        run, shown = folder / member.name, f"{archive.shown}: {member.name}/{RUN_FILE}"
        data = archive.read(f"{member.name}/{RUN_FILE}")
        record = _parse(RunRecord, data, shown)
        if problem := _record_problem(record, archive.manifest, member.name):
            raise InputError(f"{shown}: {problem}; such an archive is not imported")
        run.mkdir(parents=True)
        write_bytes(run / RUN_FILE, data)
        if member.finished:
            data = archive.read(f"{member.name}/{SUMMARY}")
            _parse(Scores, data, f"{archive.shown}: {member.name}/{SUMMARY}")
            (run / SUMMARY).parent.mkdir()
            write_bytes(run / SUMMARY, data)
        _unpack_weights(archive, f"{member.name}/{WEIGHTS_FILE}", run, _tensors_of(record, shown))
    if archive.manifest.has_best:
        data, shown = archive.read(BEST_FILE), f"{archive.shown}: {BEST_FILE}"
        best = _parse(Best, data, shown)
        with refusal(shown):
            if problem := _best_problem(best, archive.manifest):
                raise ValueError(problem)
        write_bytes(folder / BEST_FILE, data)
    for model in archive.manifest.models:
        write_bytes(folder / model / CARD_FILE, card)
        write_bytes(folder / model / IMPORTED_FILE, as_json(archive.manifest))


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    """An archive, all of it verified as for an import, in a temporary folder that goes in the end: DATASET, and PLAN_2d/MODEL/FOLD in it.

    Raises InputError for an archive that is not sound in every part.
    """
    with open_archive(path) as archive, tempfile.TemporaryDirectory(prefix="utseg-") as folder:
        dataset = Path(folder) / archive.manifest.dataset
        unpack(archive, dataset)
        yield dataset, [dataset / member.name for member in archive.manifest.members]


def _unpack_weights(archive: Archive, name: str, run: Path, wanted: dict[str, "Tensor"]) -> None:
    """Only as much is unpacked as the network can hold, whose tensors are `wanted`."""
    shown = f"{archive.shown}: {name}"
    room = SMALL_BYTES + sum(tensor.nbytes for tensor in wanted.values())
    if (size := archive.files[name].file_size) > room:
        raise InputError(
            f"{shown}: {size} bytes where the network of {RUN_FILE} has at most {room}; nothing was imported"
        )
    with atomic_path(run / WEIGHTS_FILE) as temporary, temporary.open("wb") as file:
        for data in archive.pieces(name):
            file.write(data)
    with refusal(shown):
        try:
            given = read_weights(run)
        except ArtefactError:
            with (run / WEIGHTS_FILE).open("rb") as file:
                if file.read(4).startswith(PICKLES):
                    raise InputError(
                        f"{shown}: is a pickle, which can run code; expected safetensors, nothing of it was run"
                    ) from None
            raise ValueError("not safetensors, or values do not match their checksum") from None
        problems = [
            f"{key} is {given[key].dtype} where the network has {wanted[key].dtype}"
            for key in sorted(given.keys() & wanted.keys())
            if given[key].dtype != wanted[key].dtype
        ]
        if problems := problems or weights_problems(given, wanted):
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ValueError(f"not those of the network in {RUN_FILE}: {problems[0][:200]!r}{more}")


def _parse(model: type[Model], data: bytes, shown: str) -> Model:
    """JSON without NaN, infinity, or a text that a terminal would obey."""
    with refusal(shown):
        value = json.loads(data.decode())
        for node in tree_nodes(value):
            if isinstance(node, float) and not math.isfinite(node):
                raise ValueError(f"{node} is no number")
            if isinstance(node, str) and (problem := text_problem(node)):
                raise ValueError(f"{problem} in {node[:100]!r}")
        if model is Manifest and isinstance(value, dict) and value.get("format") != FORMAT:
            raise InputError(
                f"{shown}: its format is {value.get('format')!r}, this version reads {FORMAT!r}; update utseg"
            )
        return validate(model, value, shown)


def _record_problem(record: RunRecord, manifest: Manifest, name: str) -> str | None:
    """What no real plan or network has, and where manifest and run differ, of which one could be shown and the other used; or None."""
    plan, shape = record.plan, record.plan.preprocessing
    values = [value for each in shape.labels.values() for value in values_of(each)]
    again = len({*values}) < len(values) and not has_regions(shape.labels)
    if again or not all(0 <= value <= LARGEST_LABEL for value in values):
        return f"plan.preprocessing.labels: expected values from 0 to {LARGEST_LABEL}, each once unless they are of regions"
    if plan.configuration != split_plan_name(name.partition("/")[0])[1]:
        return f"plan.configuration: {plan.configuration} is not that of the folder"
    if max(plan.patch_size) > LARGEST_SETTING:
        return f"plan.patch_size: {plan.patch_size} is larger than {LARGEST_SETTING} pixels"
    if not all(0.01 <= spacing <= 100 for spacing in shape.spacing_yx_mm):
        return f"plan.preprocessing.spacing_yx_mm: {shape.spacing_yx_mm} is not within 0.01 … 100 mm"
    for node in tree_nodes([plan.network, plan.in_channels]):
        if isinstance(node, int | float) and abs(node) > LARGEST_SETTING:
            return f"plan.network: {str(node)[:40]} is larger than {LARGEST_SETTING}"
        if isinstance(node, dict | list | str) and len(node) > LONGEST_SETTING:
            return f"plan.network: an entry is longer than {LONGEST_SETTING}"
    for key in ("labels", "channel_names"):
        if getattr(shape, key) != getattr(manifest, key):
            return f"plan.preprocessing.{key} is not what the manifest says"
    if (record.training_cases or record.validation_cases) and not manifest.with_case_ids:
        return "training_cases has names, the manifest says that there are none"
    return None


def _best_problem(best: Best, manifest: Manifest) -> str | None:
    """Where the choice is of other runs, weights or labels than those in the archive, or asks for more than anybody would; or None."""
    weights = {
        member.name: manifest.files[f"{member.name}/{WEIGHTS_FILE}"].sha256 for member in manifest.members
    }
    chosen = {member.run: member.weights_sha256 for member in best.members}
    if chosen != weights or len(best.members) != len(weights):
        return "its members are not the runs and weights of the manifest"
    if best.labels != manifest.labels:
        return "its labels are not those of the manifest"
    check_labels(best.postprocessing, manifest.labels)
    if max(len(best.postprocessing.rules), best_augmentation(best).forwards) > LONGEST_SETTING:
        return f"it has more than {LONGEST_SETTING} rules or views"
    return None


def _tensors_of(record: RunRecord, shown: str) -> dict[str, "Tensor"]:
    """Those of the network, without values. Building ends where it has more parameters than any network."""
    from torch.nn.modules.module import register_module_parameter_registration_hook

    count = 0

    def limit(module: "nn.Module", name: str, parameter: "nn.Parameter | None") -> None:
        nonlocal count
        count += 1
        if count > PARAMETERS:
            raise SettingError(f"it has more than {PARAMETERS} parameters")

    hook = register_module_parameter_registration_hook(limit)
    try:
        return dict(planned_task(record.plan).build("meta").state_dict())
    except Exception as error:  # noqa: BLE001 — whatever a stranger's settings make of a constructor, it is a refusal
        reason = " ".join(str(error).split())[:LONGEST_MESSAGE]
        raise InputError(
            f"{shown}: its network cannot be built: {reason}; update utseg, or install what has it"
        ) from None
    finally:
        hook.remove()
