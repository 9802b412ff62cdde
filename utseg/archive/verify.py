"""Checks all of an archive: every file against the manifest, every JSON against its model, every weight against its network.

The network is looked up by its registered name and built without memory for its values; what stands in the archive is never imported or
run. Nothing is written here.
"""

import hashlib
import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from utseg.archive.container import Archive
from utseg.archive.manifest import (
    CARD_FILE,
    FORMAT,
    MANIFEST_FILE,
    SUMMARY,
    Manifest,
    Member,
    manifest_problem,
)
from utseg.archive.scores import Scores
from utseg.archive.strict_json import parse_json, text_problem
from utseg.errors import InputError, SettingError, UtsegError, listing
from utseg.networks import build_network
from utseg.planning.settings import validate
from utseg.predict.model import check_record, weights_problems
from utseg.runs import RUN_FILE, WEIGHTS_FILE, RunRecord, tensors_sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

JSON_BYTES = 4 << 20
WEIGHTS_BYTES = 2 << 30
TENSORS = 20_000
LARGEST_SETTING = 1 << 13
LONGEST_SETTING = 256
LARGEST_PATCH = 1 << 13
SPACINGS_MM = (0.01, 100.0)
LARGEST_LABEL = 255
MESSAGE = 600
HEADER_LENGTH = struct.Struct("<Q")


def verify(archive: Archive) -> Manifest:
    """The manifest of an archive that is sound in every part. Raises InputError, one line, for the first thing that is not."""
    manifest = _read_manifest(archive)
    checksums = {MANIFEST_FILE, *manifest.files}
    if extra := sorted(set(archive.members) - checksums):
        raise InputError(
            f"{archive.shown}: files that its manifest does not name: {listing([repr(name) for name in extra])}; "
            "such an archive is not imported"
        )
    if missing := sorted(checksums - set(archive.members)):
        raise InputError(f"{archive.shown}: lacks {listing(missing)}; get it again")
    _check_card(_content(archive, manifest, CARD_FILE, JSON_BYTES), f"{archive.shown}: {CARD_FILE}")
    for member in manifest.members:
        _check_member(archive, manifest, member)
    return manifest


def copy_checked(archive: Archive, manifest: Manifest, name: str) -> Iterator[bytes]:
    """The bytes of a file, piece by piece. Raises InputError at the end where they are not what the manifest says."""
    expected = manifest.files[name]
    digest = hashlib.sha256()
    count = 0
    for data in archive.chunks(name, expected.size):
        digest.update(data)
        count += len(data)
        yield data
    if count != expected.size or digest.hexdigest() != expected.sha256:
        raise InputError(
            f"{archive.shown}: {name}: damaged, its size or checksum is not that of the manifest; get the archive again"
        )


def _read_manifest(archive: Archive) -> Manifest:
    shown = f"{archive.shown}: {MANIFEST_FILE}"
    if MANIFEST_FILE not in archive.members:
        raise InputError(
            f"{archive.shown}: has no {MANIFEST_FILE}; expected an archive that utseg_export_model wrote"
        )
    value = parse_json(archive.read(MANIFEST_FILE, JSON_BYTES), shown)
    if isinstance(value, dict) and value.get("format") != FORMAT:
        raise InputError(
            f"{shown}: its format is {str(value.get('format'))[:40]!r}, this version reads {FORMAT!r}; update utseg"
        )
    with _short(shown):
        manifest = validate(Manifest, value, shown)
    if problem := manifest_problem(manifest):
        raise InputError(f"{shown}: {problem}; such an archive is not imported")
    return manifest


def _content(archive: Archive, manifest: Manifest, name: str, limit: int) -> bytes:
    if (size := manifest.files[name].size) > limit:
        raise InputError(
            f"{archive.shown}: {name}: {size} bytes by the manifest where at most {limit} are expected; nothing was imported"
        )
    return b"".join(copy_checked(archive, manifest, name))


def _check_card(data: bytes, shown: str) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{shown}: not UTF-8 text ({error.reason}); get the archive again") from None
    if problem := text_problem(text):
        raise InputError(f"{shown}: {problem} is in it; get the archive again")


def _check_member(archive: Archive, manifest: Manifest, member: Member) -> None:
    run_name, weights_name = f"{member.name}/{RUN_FILE}", f"{member.name}/{WEIGHTS_FILE}"
    shown = f"{archive.shown}: {run_name}"
    value = parse_json(_content(archive, manifest, run_name, JSON_BYTES), shown)
    with _short(shown):
        record = validate(RunRecord, value, shown)
        check_record(record, shown)
    if problem := record_problem(record) or _contradiction(record, manifest, member):
        raise InputError(f"{shown}: {problem}; such an archive is not imported")
    if member.finished:
        name = f"{member.name}/{SUMMARY}"
        shown_scores = f"{archive.shown}: {name}"
        scores = parse_json(_content(archive, manifest, name, JSON_BYTES), shown_scores)
        with _short(shown_scores):
            validate(Scores, scores, shown_scores)
    _check_weights(archive, manifest, weights_name, record)


def _contradiction(record: RunRecord, manifest: Manifest, member: Member) -> str | None:
    """Where manifest and run say different things, which one could be shown and the other used."""
    said = {
        "network": (record.network, member.network),
        "selection": (record.selection, member.selection),
        "labels": (record.plan.labels, manifest.labels),
        "channel_names": (record.plan.channel_names, manifest.channel_names),
        "training_cases": (bool(record.training_cases or record.validation_cases), manifest.with_case_ids),
    }
    if not (record.training_cases or record.validation_cases):
        del said["training_cases"]  # a run on nothing has no names, whether they are wanted or not
    for key, (ours, theirs) in said.items():
        if ours != theirs:
            return f"{key} is not what the manifest says"
    return None


def record_problem(record: RunRecord) -> str | None:
    """Values that a plan or network may hold by their type, and no real one has; or None."""
    plan = record.plan
    values = list(plan.labels.values())
    if len(set(values)) < len(values) or not all(0 <= value <= LARGEST_LABEL for value in values):
        return f"plan.labels: expected values from 0 to {LARGEST_LABEL}, each once"
    if max(plan.patch_size) > LARGEST_PATCH:
        return f"plan.patch_size: {plan.patch_size} is larger than {LARGEST_PATCH} pixels"
    low, high = SPACINGS_MM
    if not all(low <= spacing <= high for spacing in plan.spacing_yx_mm):
        return f"plan.spacing_yx_mm: {plan.spacing_yx_mm} is not within {low} … {high} mm"
    waiting: list[Any] = [record.network_settings, record.in_channels]
    while waiting:
        node = waiting.pop()
        if isinstance(node, int | float) and abs(node) > LARGEST_SETTING:
            return f"network_settings: {str(node)[:40]} is larger than {LARGEST_SETTING}"
        if isinstance(node, dict | list | str) and len(node) > LONGEST_SETTING:
            return f"network_settings: an entry is longer than {LONGEST_SETTING}"
        if isinstance(node, dict | list):
            waiting += node.values() if isinstance(node, dict) else node
    return None


def _check_weights(archive: Archive, manifest: Manifest, name: str, record: RunRecord) -> None:
    """Only as much is read as the network of the record can hold."""
    shown = f"{archive.shown}: {name}"
    size = manifest.files[name].size
    header, header_bytes = _read_header(archive, name, size, shown)
    tensors = {key: value for key, value in header.items() if key != "__metadata__"}
    if len(tensors) > TENSORS:
        raise InputError(f"{shown}: has {len(tensors)} tensors, no network has as many; nothing was imported")
    network = _build_on_meta(record, len(tensors), shown)
    wanted = network.state_dict()
    room = sum(tensor.numel() * tensor.element_size() for tensor in wanted.values())
    if size - header_bytes > room or size > WEIGHTS_BYTES:
        raise InputError(
            f"{shown}: holds {size - header_bytes} bytes of values where the network of {RUN_FILE} has {room}; nothing was imported"
        )
    given = _parse_weights(_content(archive, manifest, name, WEIGHTS_BYTES), shown)
    for key in sorted(given.keys() & wanted.keys()):
        if given[key].dtype != wanted[key].dtype:
            raise InputError(
                f"{shown}: {key[:100]!r} is {given[key].dtype} where the network of {RUN_FILE} has {wanted[key].dtype}; "
                "nothing was imported"
            )
    if problems := weights_problems(given, wanted):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            f"{shown}: the weights are not those of the network in {RUN_FILE}: {problems[0][:200]!r}{more}; nothing was imported"
        )
    metadata = header.get("__metadata__")
    expected = metadata.get("tensors_sha256") if isinstance(metadata, dict) else None
    if expected is not None and expected != tensors_sha256(given):
        raise InputError(f"{shown}: damaged, its values do not match their checksum; get the archive again")


def _read_header(archive: Archive, name: str, size: int, shown: str) -> tuple[dict[str, Any], int]:
    """The safetensors header, and how many bytes stand before the values. Layout: https://github.com/huggingface/safetensors#format"""
    wanted, data = HEADER_LENGTH.size, b""
    for piece in archive.chunks(name, size):
        data += piece
        if wanted == HEADER_LENGTH.size and len(data) >= wanted:
            wanted += HEADER_LENGTH.unpack_from(data)[0]
            if wanted > min(size, JSON_BYTES):
                raise InputError(_no_header(data, shown))
        if len(data) >= wanted:
            break
    header = parse_json(data[HEADER_LENGTH.size : wanted].rstrip(b" "), f"{shown}: header")
    if len(data) < wanted or not isinstance(header, dict):
        raise InputError(f"{shown}: not safetensors (it ends in its header); get the archive again")
    return header, wanted


def _no_header(data: bytes, shown: str) -> str:
    """A pickle, and the zip of pickles that torch writes, begin with what would be a header of many terabytes."""
    if data.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")):
        return f"{shown}: is a pickle, as torch.save writes, which can run code; expected safetensors, nothing of it was run"
    return f"{shown}: not safetensors (its header is longer than the file may have); get the archive again"


def _parse_weights(data: bytes, shown: str) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{shown}: not safetensors ({str(error)[:200]}); get the archive again") from None


def _build_on_meta(record: RunRecord, tensors: int, shown: str) -> "nn.Module":
    """The network without memory for its values. Building ends where it has more parameters than there are tensors for."""
    import torch
    from torch.nn.modules.module import register_module_parameter_registration_hook

    count = 0

    def limit(module: "nn.Module", name: str, parameter: "nn.Parameter | None") -> None:
        nonlocal count
        count += 1
        if count > 10 * (
            tensors + 10
        ):  # a network may register one several times, as when it changes its layout
            raise SettingError("it has many more parameters than the weights have tensors")

    hook = register_module_parameter_registration_hook(limit)
    sizes = {"in_channels": record.in_channels, "num_classes": record.num_classes}
    try:
        with torch.device("meta"):
            return build_network(record.network, **(record.network_settings | sizes))
    except Exception as error:  # noqa: BLE001 — whatever a stranger's settings make of a constructor, it is a refusal
        raise InputError(
            f"{shown}: its network cannot be built: {' '.join(str(error).split())[:MESSAGE]}; update utseg, or install what has it"
        ) from None
    finally:
        hook.remove()


@contextmanager
def _short(shown: str) -> Iterator[None]:
    """Errors of ours that quote what they found, which may be long."""
    try:
        yield
    except UtsegError as error:
        raise InputError(str(error)[:MESSAGE]) from None


def as_json(value: Any) -> bytes:
    """How JSON stands in an archive."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
