"""What of a file is compared: voxels, arrays, tensors, pixels, or a text without times, dates, paths, versions and checksums."""

import csv
import gzip
import hashlib
import io
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LARGEST_TEXT = 200_000
UNCOMPARED_KEYS = ("versions", "git_revision", "started", "created", "utseg_version")
TIMED = re.compile(r"(seconds|_s|hours)$")
EMBEDDED = re.compile(r"[A-Za-z0-9+/=]{200,}")
PICTURES = (".png", ".webp", ".jpg")
TEXTS = (".json", ".jsonl", ".csv", ".md", ".tex", ".html", ".txt", ".toml", ".cfg")


@dataclass(frozen=True)
class Digest:
    """`value` is what is compared; `text` is there to show a difference."""

    value: str | list[str]
    text: str = ""


def digest_file(path: Path, work: Path) -> Digest:
    """The digest of a file by its kind."""
    return digest_bytes(path.name, path.read_bytes(), work)


def digest_bytes(name: str, data: bytes, work: Path) -> Digest:
    """The same of bytes under a file's name."""
    suffix = Path(name).suffix.lower()
    if suffix == ".gz":
        return Digest(sha(gzip.decompress(data)))
    if suffix == ".npz":
        return Digest(sha(*arrays(data)))
    if suffix == ".safetensors":
        return Digest(sha(*tensors(data)))
    if suffix in PICTURES:
        return Digest(sha(*pixels(data)))
    if suffix == ".zip":
        return zip_members(data, work)
    if suffix in TEXTS:
        return text_digest(name, data.decode(), work)
    return Digest(sha(data))


def sha(*parts: bytes) -> str:
    """SHA-256 of bytes one after the other."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def arrays(data: bytes) -> list[bytes]:
    """Name, type, shape and values of every array of an npz."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return [
            part
            for name in sorted(file.files)
            for part in (f"{name} {file[name].dtype} {file[name].shape}".encode(), file[name].tobytes())
        ]


def tensors(data: bytes) -> list[bytes]:
    """The same of every tensor of a safetensors file."""
    from safetensors.numpy import load

    return [
        part
        for name, value in sorted(load(data).items())
        for part in (f"{name} {value.dtype} {value.shape}".encode(), value.tobytes())
    ]


def pixels(data: bytes) -> list[bytes]:
    """Size, mode and pixels of a picture."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return [f"{picture.size} {picture.mode}".encode(), picture.tobytes()]


def zip_members(data: bytes, work: Path) -> Digest:
    """A line a member."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        found = {name: digest_bytes(name, file.read(name), work) for name in file.namelist()}
    lines = [f"{name} {digest.value}" for name, digest in found.items()]
    shown = [f"{name}: {line}" for name, digest in found.items() for line in digest.text.splitlines()]
    return Digest(sha("\n".join(lines).encode()), "\n".join(shown)[:LARGEST_TEXT])


def text_digest(name: str, text: str, work: Path) -> Digest:
    """The digest of a text, of which only what may not move is left."""
    if name.endswith(".json"):
        text = json.dumps(without_times(json.loads(text)), indent=1, ensure_ascii=False)
    elif name.endswith(".jsonl"):
        text = "\n".join(json.dumps(without_times(json.loads(line))) for line in text.splitlines())
    elif name.endswith(".csv"):
        text = csv_without_times(text)
    elif name.endswith(".html"):
        text = EMBEDDED.sub(lambda found: f"embedded {sha(found[0].encode())[:16]}", text)
        text = text.replace("><", ">\n<").replace(',"', ',\n"')
    text = comparable(text, work)
    return Digest(sha(text.encode()), text if len(text) <= LARGEST_TEXT else "")


def without_times(value: Any) -> Any:
    """A JSON value with what is not compared blanked."""
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: "-"
        if key in UNCOMPARED_KEYS or (TIMED.search(key) and isinstance(item, float))
        else without_times(item)
        for key, item in value.items()
    }


def csv_without_times(text: str) -> str:
    """A CSV with the columns of times blanked."""
    rows = list(csv.reader(io.StringIO(text)))
    timed = [number for number, head in enumerate(rows[0] if rows else []) if TIMED.search(head)]
    for row in rows[1:]:
        for number in timed:
            row[number] = "-"
    return "\n".join(",".join(row) for row in rows)


def comparable(text: str, work: Path) -> str:
    """Blanks paths, checksums, dates and our own version."""
    text = text.replace(str(work), "WORK")
    text = re.sub(r"\b(?=[0-9]*[a-f])(?:[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{12})\b", "CHECKSUM", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?( UTC|\+00:00|Z)?", "DATE", text)
    return re.sub(r"utseg \d+\.\d+\.\d+\S*", "utseg VERSION", text)
