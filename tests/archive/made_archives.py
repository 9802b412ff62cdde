"""Runs to export, and archives taken apart and put together again: as a stranger would, with checksums that fit where wanted."""

import hashlib
import io
import json
import stat
import zipfile
from collections.abc import Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from tiny_models import make_run_folder

from utseg.commands import import_model
from utseg.evaluate.records import METRIC_KEYS, case_columns, to_csv
from utseg.evaluate.summary import summarise
from utseg.files import write_json, write_text

COLUMNS = ("vendor", "hospital_number")
RUN = "auto_2d/UTNet/fold0"
RUN_JSON, WEIGHTS = f"{RUN}/run.json", f"{RUN}/model.safetensors"
SUMMARY = f"{RUN}/validation/summary.json"
Members = dict[str, bytes]


def make_finished_run(
    dataset: Path, fold: str = "fold0", seed: int = 0, first: int = 0, **changes: Any
) -> Path:
    """A run with the scores of four made-up subjects, and the names of its cases."""
    folder = make_run_folder(dataset, fold=fold, seed=seed, **changes)
    rows = made_rows(first)
    validation = folder / "validation"
    validation.mkdir()
    write_text(validation / "metrics.csv", to_csv(rows, case_columns(COLUMNS)))
    write_json(validation / "summary.json", summarise(rows, COLUMNS))
    record = json.loads((folder / "run.json").read_text())
    record["validation_cases"] = [f"miller{first + number}" for number in range(4)]
    record["training_cases"] = [f"smith{number}" for number in range(6)]
    write_json(folder / "run.json", record)
    return folder


def made_rows(first: int = 0) -> list[dict[str, Any]]:
    return [
        {
            "case": f"miller{first + number}",
            "subject": f"miller{first + number}",
            "vendor": "AB"[number % 2],
            "hospital_number": str(4711 + first + number),
            "label": value,
            "label_name": name,
            **dict.fromkeys(METRIC_KEYS, 0.5 + 0.01 * (first + number) * value),
            "status": "both",
        }
        for number in range(4)
        for value, name in ((1, "LV"), (2, "MYO"))
    ]


def unpacked(path: Path) -> Members:
    """All files of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, members: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """Writes files as a zip."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return path


def signed(files: Members, **changes: Any) -> Members:
    """The same files under a manifest whose sizes and checksums are theirs; `changes` are made to the manifest."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in sorted(files.items())
        if name != "manifest.json"
    }
    return files | {"manifest.json": json.dumps(manifest | changes).encode()}


def changed_json(data: bytes, change: Mapping[str, Any]) -> bytes:
    """JSON with values replaced, by dotted key."""
    tree = json.loads(data)
    for key, value in change.items():
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node[group]
        node[last] = value
    return json.dumps(tree).encode()


def with_entry(path: Path, name: str, data: bytes = b"x", *, mode: int = stat.S_IFREG | 0o644) -> Path:
    """Adds a member of any name and kind to an archive."""
    info = zipfile.ZipInfo("placeholder")
    info.filename = name  # the constructor would fix it
    info.create_system = 3
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, data)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(path: Path, tmp_path: Path, words: str = "") -> str:
    """Imports by the command, and is glad when that fails; returns the message."""
    clean = tmp_path / "clean"
    with redirect_stderr(io.StringIO()) as stderr:
        code = import_model.main([str(path), "--home", str(clean)])
    message = stderr.getvalue()
    assert code == 1 and message.startswith("error: ") and words in message, message
    assert message.count("\n") == 1 and len(message) < 1500 and "unexpected" not in message, message
    assert not clean.exists()
    return message
