"""Archives of a stranger: each is refused in one line, nothing of it is run, nothing is written."""

import io
import json
import os
import pickle
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from made_archives import (
    RUN_JSON,
    SUMMARY,
    WEIGHTS,
    Members,
    changed_json,
    packed,
    refused,
    signed,
    tree,
    with_entry,
)
from safetensors.torch import load, save

from utseg.archive import import_model, reading


def test_the_archive_that_is_changed_below_is_sound(members, tmp_path):
    import_model(packed(tmp_path / "a.zip", members), tmp_path / "a")
    import_model(packed(tmp_path / "b.zip", signed(members), zipfile.ZIP_DEFLATED), tmp_path / "b")
    assert (
        tree(tmp_path / "a")[f"Tiny/{WEIGHTS}"] == tree(tmp_path / "b")[f"Tiny/{WEIGHTS}"] == members[WEIGHTS]
    )


@pytest.mark.parametrize("low", [0x80, 0x50])
def test_a_header_whose_length_looks_like_a_pickle_s_first_byte_is_none(members, tmp_path, low):
    weights = load(members[WEIGHTS])
    data = next(
        data
        for length in range(0, 260, 4)
        if (data := save(weights, metadata={"pad": "x" * length}))[0] == low
    )
    import_model(packed(tmp_path / "a.zip", signed(members | {WEIGHTS: data})), tmp_path / "a")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "auto_2d/../../evil",
        "auto_2d/UTNet/fold0/..",
        "/etc/evil",
        "//server/evil",
        "C:/evil",
        "C:evil",
        "auto_2d\\UTNet\\evil",
        "auto_2d//evil",
        "./evil",
        ".evil",
        "",
        "evil\n",
        "evil\x1b[2J",
        "evil\x00.json",
        "evil. ",
        "a" * 300,
        "auto_2d/UTNet/",
    ],
)
def test_names_that_are_paths(archive, tmp_path, name):
    refused(with_entry(archive, name), tmp_path, "is not allowed")


@pytest.mark.parametrize("kind", ["LNK", "DIR", "CHR", "BLK", "IFO", "SOCK"])
def test_what_is_no_plain_file(archive, tmp_path, kind):
    mode = getattr(stat, f"S_IF{kind}") | 0o777
    refused(with_entry(archive, "evil", b"/etc/passwd", mode=mode), tmp_path, "not a plain file")


def test_names_that_are_there_twice(archive, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"):
        with_entry(archive, RUN_JSON, b"{}")
    refused(archive, tmp_path, "more than once")


@pytest.mark.parametrize(
    "name",
    [
        *("evil.py", "auto_2d/UTNet/fold0/evil.json", "best.json", "inner.zip"),
        *(RUN_JSON.upper(), "model_card.md", "auto_2d/UTNet"),
    ],
)
def test_files_that_the_manifest_does_not_name(archive, tmp_path, name):
    refused(with_entry(archive, name, archive.read_bytes()), tmp_path, "but is in the archive")


@pytest.mark.parametrize("name", ["evil.py", "auto_2d/UTNet/fold0/checkpoint_latest.pt", "../evil", "/evil"])
def test_a_manifest_that_names_more_than_its_members_have(members, tmp_path, name):
    path = packed(tmp_path / "model.zip", signed(members | {name: b"x"}))
    message = refused(path, tmp_path)
    assert "belongs to no member" in message or "is not allowed" in message


@pytest.mark.parametrize("name", ["MODEL_CARD.md", RUN_JSON, WEIGHTS, SUMMARY])
def test_files_that_are_missing(members, tmp_path, name):
    del members[name]
    refused(packed(tmp_path / "a.zip", members), tmp_path, "is missing from the archive")
    refused(packed(tmp_path / "b.zip", signed(members)), tmp_path, "is missing from the manifest")


def test_no_manifest(members, tmp_path):
    del members["manifest.json"]
    refused(packed(tmp_path / "model.zip", members), tmp_path, "has no manifest.json")


@pytest.mark.parametrize("name", ["MODEL_CARD.md", RUN_JSON, WEIGHTS, SUMMARY])
def test_content_that_is_not_that_of_the_manifest(members, tmp_path, name):
    members[name] = members[name][:-3] + b" \n\n"
    refused(packed(tmp_path / "a.zip", members), tmp_path, "checksum")
    members[name] = members[name][:-1]
    refused(packed(tmp_path / "b.zip", members), tmp_path)


@pytest.mark.parametrize("factor", [0, 0.5, 2, 1e6, 1e15])
def test_a_manifest_that_lies_about_sizes(members, tmp_path, factor):
    for name in (RUN_JSON, WEIGHTS):
        files = json.loads(members["manifest.json"])["files"]
        files[name]["size"] = int(files[name]["size"] * factor)
        manifest = changed_json(members["manifest.json"], {"files": files})
        refused(packed(tmp_path / "model.zip", members | {"manifest.json": manifest}), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "utseg-model-2"}, "update utseg"),
        ({"dataset": "../Tiny"}, "dataset"),
        ({"dataset": ""}, "dataset"),
        ({"members": []}, "members"),
        ({"evil": 1}, "unknown key 'evil'"),
        ({"labels": {"LV": 1}}, "labels"),
        ({"channel_names": ["CT"]}, "channel_names"),
        ({"with_case_ids": "x" * 5000}, "with_case_ids"),
        ({"files": {}}, "is missing"),
        ({"terms": {"licence": "\x1b[31mred"}}, "character"),
        ({"terms": {"licence": "\u202egnp.exe"}}, "character"),
        ({"scores": [{"runs": ["other"], "scores": None}]}, "scores"),
    ],
)
def test_a_manifest_that_cannot_be(members, tmp_path, change, words):
    manifest = changed_json(members["manifest.json"], change)
    refused(packed(tmp_path / "model.zip", members | {"manifest.json": manifest}), tmp_path, words)


@pytest.mark.parametrize(
    "name", ["auto_2d/UTNet", "auto_2d/UTNet/../fold0", "auto_3d/UTNet/fold0", "/a_2d/b/c", "a_2d/b/.c"]
)
def test_a_member_that_is_no_run(members, tmp_path, name):
    member = json.loads(members["manifest.json"])["members"][0] | {"name": name}
    others = {key: data for key, data in members.items() if "/" not in key}
    refused(packed(tmp_path / "model.zip", signed(others, members=[member])), tmp_path, "members")


@pytest.mark.parametrize("name", [RUN_JSON, "auto_2d/utnet/fold0/run.json", "AUTO_2d/UTNet/fold1/run.json"])
def test_members_with_one_name(members, tmp_path, name):
    """Or with names that some file systems take for one."""
    (member,) = json.loads(members["manifest.json"])["members"]
    both = [member, member | {"name": name.removesuffix("/run.json")}]
    refused(packed(tmp_path / "model.zip", signed(members, members=both)), tmp_path, "letter case")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b"[]",
        b"null",
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b"[" * 500 + b"]" * 500,
    ],
)
@pytest.mark.parametrize("name", ["manifest.json", RUN_JSON, SUMMARY])
def test_json_that_is_none(members, tmp_path, name, data):
    changed = members | {name: data}
    refused(packed(tmp_path / "model.zip", changed if name == "manifest.json" else signed(changed)), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan.network_name": "os.system"}, "no network is called 'os.system'"),
        ({"plan.network_name": "utseg.networks.utnet:UTNet"}, "no network is called"),
        ({"plan.network.evil": 1}, "no setting 'evil'"),
        ({"plan.network.base_channels": 10**9}, "larger than"),
        ({"plan.network.base_channels": 2**16}, "larger than"),
        ({"plan.network.base_channels": 2**13}, "not those of the network"),
        ({"plan.network.reduce_size": 2**13}, "not those of the network"),
        ({"plan.network.num_heads": [3, 3]}, "cannot be built"),
        ({"plan.network.num_blocks": [400, 400]}, "more than 4000 parameters"),
        ({"plan.network.levels": 8000}, ""),
        ({"plan.network.num_blocks": [1] * 1000}, "longer than"),
        ({"plan.network.block_list": "x" * 1000}, "longer than"),
        ({"plan.network.base_channels": 8}, "not those of the network"),
        ({"plan.network.base_channels": "4"}, "base_channels"),
        ({"plan.network.num_classes": 7}, "no setting 'num_classes'"),
        (
            {"plan.preprocessing.labels": {"background": 0, "LV": 1, "MYO": 2, "RV": 100_000}},
            "plan.preprocessing.labels",
        ),
        ({"plan.preprocessing.labels.LV": -3}, "plan.preprocessing.labels"),
        ({"plan.patch_size": [10**6, 10**6]}, "plan.patch_size"),
        ({"plan.preprocessing.spacing_yx_mm": [1e-9, 1]}, "plan.preprocessing.spacing_yx_mm"),
        ({"plan.evil": 1}, "unknown key 'plan.evil'"),
        (
            {"plan.configuration": "2.5d", "plan.neighbour_distance_mm": 8},
            "plan.configuration: 2.5d is not that",
        ),
        ({"training_cases": ["miller"]}, "training_cases"),
        ({"format": "utseg-run-9"}, "format"),
    ],
)
def test_a_run_that_cannot_be(members, tmp_path, change, words):
    run = changed_json(members[RUN_JSON], change)
    manifest: dict[str, object] = {}
    if "plan.preprocessing.labels" in change:
        manifest["labels"] = change["plan.preprocessing.labels"]
    refused(packed(tmp_path / "model.zip", signed(members | {RUN_JSON: run}, **manifest)), tmp_path, words)


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 5, "torch"])
def test_a_pickle_in_the_place_of_weights(members, tmp_path, protocol):
    trap = tmp_path / "trap"
    buffer = io.BytesIO()
    if protocol == "torch":
        torch.save({"heads.0.bias": Evil(trap)}, buffer)
    else:
        pickle.dump(Evil(trap), buffer, protocol=protocol)
    path = packed(tmp_path / "model.zip", signed(members | {WEIGHTS: buffer.getvalue()}))
    refused(path, tmp_path, "not safetensors" if protocol == 0 else "is a pickle, which can run code")
    assert not trap.exists()


def change_weights(members: Members, change: str) -> bytes:
    weights = load(members[WEIGHTS])
    first = next(name for name, value in sorted(weights.items()) if value.dim() == 4)
    if change == "nan":
        weights[first].flatten()[3] = float("nan")
    elif change == "inf":
        weights[first].flatten()[3] = float("inf")
    elif change == "missing":
        del weights[first]
    elif change == "more":
        del weights[first]
        weights["evil"] = torch.zeros(1)
    elif change == "larger":
        weights["evil"] = torch.zeros(2_000_000)
    elif change == "shape":
        weights[first] = weights[first].flatten()
    elif change == "type":
        weights[first] = weights[first].half()
    elif change == "checksum":
        weights[first] += 1
        return save(weights, metadata={"tensors_sha256": "0" * 64})
    return save(weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("nan", "not finite"),
        ("inf", "not finite"),
        ("missing", "is missing"),
        ("more", "(and 1 more)"),
        ("larger", "bytes where the network of run.json has at most"),
        ("shape", "has the shape"),
        ("type", "torch.float16"),
        ("checksum", "do not match their checksum"),
    ],
)
def test_weights_that_are_not_the_network_s(members, tmp_path, change, words):
    path = packed(tmp_path / "model.zip", signed(members | {WEIGHTS: change_weights(members, change)}))
    refused(path, tmp_path, words)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\0" * 7,
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 100),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_weights_that_are_no_safetensors(members, tmp_path, data):
    refused(packed(tmp_path / "model.zip", signed(members | {WEIGHTS: data})), tmp_path)


def test_a_card_that_is_no_text(members, tmp_path):
    refused(packed(tmp_path / "a.zip", signed(members | {"MODEL_CARD.md": b"\xff\xfe"})), tmp_path, "utf-8")
    refused(
        packed(tmp_path / "b.zip", signed(members | {"MODEL_CARD.md": b"\x1b[2J"})), tmp_path, "character"
    )


@pytest.mark.parametrize("name", ["manifest.json", "MODEL_CARD.md", RUN_JSON, SUMMARY, WEIGHTS])
def test_a_bomb_is_refused_without_unpacking_it(members, tmp_path, name):
    bomb = b" " * (64 << 20)
    changed = members | {name: bomb}
    path = packed(
        tmp_path / "model.zip", changed if name == "manifest.json" else signed(changed), zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 400_000
    del bomb, changed
    tracemalloc.start()
    refused(path, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20


def test_a_bomb_whose_header_lies_is_not_unpacked_further_than_it_says(members, tmp_path):
    path = packed(
        tmp_path / "model.zip", members | {"manifest.json": b" " * (64 << 20)}, zipfile.ZIP_DEFLATED
    )
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + place, 2 << 20)  # what it claims to unpack to
    path.write_bytes(data)
    refused(path, tmp_path, "CRC")


def test_the_ratio_is_limited_where_the_size_is_not(tmp_path):
    path = packed(tmp_path / "model.zip", {WEIGHTS: b"\0" * (8 << 20)}, zipfile.ZIP_DEFLATED)
    refused(path, tmp_path, "archive bomb")


@pytest.mark.parametrize("count", [reading.MEMBERS + 1, 20_000])
def test_too_many_members(tmp_path, count):
    path = packed(tmp_path / "model.zip", {f"f{number:0100}": b"" for number in range(count)})
    tracemalloc.start()
    refused(path, tmp_path, "archive bomb")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


def test_files_that_overlap(archive, tmp_path):
    """Two entries of the directory for the same bytes, as in the bombs that unpack to petabytes without a nested zip."""
    data = archive.read_bytes()
    start = struct.unpack_from("<I", data, len(data) - 6)[0]
    directory, end = data[start:-22], bytearray(data[-22:])
    entries = directory + b"".join(
        directory.replace(b"auto_2d", b"copy" + bytes([97 + k]) + b"2d")
        .replace(b"manifest", b"manifes" + bytes([97 + k]))
        .replace(b"MODEL", b"MODE" + bytes([97 + k]))
        for k in range(3)
    )
    count = struct.unpack_from("<H", end, 8)[0] * 4
    struct.pack_into("<HHI", end, 8, count, count, len(entries))
    archive.write_bytes(data[:start] + entries + end)
    assert len(zipfile.ZipFile(archive).namelist()) == count
    refused(archive, tmp_path, "overlap")


def test_something_before_the_archive(archive, tmp_path):
    archive.write_bytes(b"#!/bin/sh\nrm -r ~\nexit\n" + archive.read_bytes())
    assert zipfile.is_zipfile(archive)
    refused(archive, tmp_path, "before its first file")


def test_encrypted_members(archive, tmp_path):
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    refused(archive, tmp_path, "encrypted")


def test_another_way_of_packing(members, tmp_path):
    refused(packed(tmp_path / "model.zip", members, zipfile.ZIP_LZMA), tmp_path, "packed by method 14")


def test_another_name_in_the_local_header(archive, tmp_path):
    archive.write_bytes(archive.read_bytes().replace(b"manifest.json", b"manifest.evil", 1))
    refused(archive, tmp_path, "differ")


@pytest.mark.parametrize("data", [b"", b"PK", b"not a zip at all" * 100, b"PK\x05\x06" + b"\0" * 18])
def test_what_is_no_archive(tmp_path, data):
    (tmp_path / "model.zip").write_bytes(data)
    refused(tmp_path / "model.zip", tmp_path)


def test_no_such_file(tmp_path):
    refused(tmp_path / "nowhere.zip", tmp_path, "no such file")
    refused(tmp_path, tmp_path, "no such file")
