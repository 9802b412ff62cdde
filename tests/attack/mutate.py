"""Changes to a file's bytes, to JSON and to what lies inside a compressed file or an archive; the same generator gives the same change."""

import gzip
import hashlib
import io
import json
import struct
import zipfile
from copy import deepcopy
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 2**31, 2**63, 10**400, float("nan"), float("inf")),
    *("", " ", "0", "-1", "nan", "../../up", "/etc/passwd", "\0", "a\nb", "\u202e", "x" * 5000, "ü" * 70),
    *([], {}, [[]], [None], {"": 0}, [0] * 300, [1, 2, 3], ["a", "b"], {"a": {"b": {}}}),
)
NUMBERS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)
TEXTS = (
    *(
        b"\0",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r",
        b"\n\n",
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"=",
        b"[",
        b"]",
        b"{",
        b"}",
    ),
    *(
        b"nan",
        b"inf",
        b"-1",
        b"1e999",
        b"9" * 5000,
        b"[" * 3000,
        b"../../x",
        b"<script>",
        b"\xc3\x28",
        b"\\ud800",
    ),
)


def bytes_changed(data: bytes, rng: Random, begin: int = 0) -> bytes:
    """Between one and five changes: flipped, set, cut out, doubled, put in, zeroed, cut off. Half of them near the beginning."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        span = min(len(changed), begin + 400) if rng.random() < 0.5 else len(changed)
        if span <= begin:
            break
        _change(changed, rng.randrange(begin, span), rng)
    return bytes(changed)


def _change(data: bytearray, at: int, rng: Random) -> None:
    count = rng.choice((1, 1, 2, 4, 8, 64))
    match rng.randrange(8):
        case 0:
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + count] = rng.randbytes(min(count, len(data) - at))
        case 2:
            code = rng.choice(("<h", ">h", "<i", ">i", "<q", "<f", "<d"))
            top = 2 ** (8 * struct.calcsize(code) - 1) - 1
            value = rng.choice(NUMBERS) % top * rng.choice((1, -1))
            new = struct.pack(code, value)[: len(data) - at]
            data[at : at + len(new)] = new
        case 3:
            del data[at : at + count]
        case 4:
            data[at:at] = data[at : at + count * 4]
        case 5:
            data[at:at] = rng.choice(TEXTS)
        case 6:
            data[at : at + count] = bytes(min(count, len(data) - at))
        case _:
            if rng.random() < 0.3:
                del data[at:]


def json_changed(data: bytes, rng: Random) -> bytes:
    """One or two values anywhere in the tree replaced, removed, renamed, moved or added; now and then the bytes."""
    if rng.random() < 0.2:
        return bytes_changed(data, rng)
    tree = json.loads(data)
    for _ in range(rng.randint(1, 2)):
        places = _places(tree)
        if not places:
            break
        _change_json(tree, *rng.choice(places), places, rng)
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every container of the tree with each of its keys."""
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in list(keys)[:400]]
        todo += [node[key] for key in keys]
    return found


def _change_json(tree: Any, node: Any, key: Any, places: list[tuple[Any, Any]], rng: Random) -> None:
    match rng.randrange(6):
        case 0 | 1 | 2:
            node[key] = deepcopy(rng.choice(VALUES))
        case 3:
            del node[key]
        case 4 if isinstance(node, dict):
            node[rng.choice(("extra", "", f"{key}_", "__class__"))] = node[key]
        case _:
            other, place = rng.choice(places)
            if place in other if isinstance(other, dict) else place < len(other):
                node[key] = json.loads(json.dumps(other[place]))


def gzip_changed(data: bytes, rng: Random) -> bytes:
    """The compressed bytes, or, more often, what they hold."""
    if rng.random() < 0.3:
        return bytes_changed(data, rng)
    return gzip.compress(bytes_changed(gzip.decompress(data), rng), 1, mtime=0)


def zip_changed(data: bytes, rng: Random) -> bytes:
    """The bytes of a zip, or of a member of it, under a fitting CRC and, where there is one, a fitting manifest."""
    if rng.random() < 0.3:
        return bytes_changed(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    info = rng.choice(list(members))
    is_json = info.filename.endswith(".json")
    members[info] = (json_changed if is_json else bytes_changed)(members[info], rng)
    files = {each.filename: content for each, content in members.items()}
    if "manifest.json" in files and info.filename != "manifest.json":
        manifest = json.loads(files["manifest.json"])
        for name, content in files.items():
            if name != "manifest.json":
                sums = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                manifest["files"][name] = sums
        files["manifest.json"] = json.dumps(manifest).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return out.getvalue()


def safetensors_changed(data: bytes, rng: Random) -> bytes:
    """The bytes, or the JSON header with its length set right."""
    if rng.random() < 0.4:
        return bytes_changed(data, rng)
    (length,) = struct.unpack("<Q", data[:8])
    header = json_changed(data[8 : 8 + length], rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]
