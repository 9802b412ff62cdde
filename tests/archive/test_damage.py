"""Archives damaged at random: imported whole and unchanged, or refused in one line with nothing written. Never a crash."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_archives import RUN_JSON, SUMMARY, packed, refused, signed, unpacked

from utseg.archive import import_model
from utseg.errors import InputError


@pytest.fixture(scope="module")
def whole(exported) -> bytes:
    return exported.read_bytes()


QUICK = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def imported_whole_or_not_at_all(data: bytes, whole: bytes, folder: Path) -> None:
    path = folder / "model.zip"
    path.write_bytes(data)
    results = folder / "clean" / "results"
    try:
        imported = import_model(path, results)
    except InputError as error:
        assert len(error.lines()) == 1 and "\n" not in str(error)
        assert not (folder / "clean").exists()
        return
    for name, content in unpacked(path).items():
        if name != "manifest.json" and name != "MODEL_CARD.md":
            assert (results / imported.manifest.dataset / name).read_bytes() == content
    shutil.rmtree(folder / "clean")


@QUICK
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), at_end=st.booleans())
def test_any_flipped_bit_is_refused_or_changes_nothing(whole, tmp_path, where, bit, at_end):
    data = bytearray(whole)
    # half of the flips in the last kilobytes, where the directory is
    position = len(data) - 1 - int(where * 1200) if at_end else int(where * len(data))
    data[position] ^= 1 << bit
    imported_whole_or_not_at_all(bytes(data), whole, tmp_path)


@QUICK
@given(where=st.floats(0, 1, exclude_max=True))
def test_any_truncated_archive_is_refused(whole, tmp_path, where):
    (tmp_path / "model.zip").write_bytes(whole[: int(where * len(whole))])
    refused(tmp_path / "model.zip", tmp_path)


@QUICK
@given(
    start=st.floats(0, 1, exclude_max=True),
    length=st.integers(0, 400),
    filling=st.one_of(st.binary(max_size=400), st.just(b"")),
)
def test_any_piece_replaced_is_refused_or_changes_nothing(whole, tmp_path, start, length, filling):
    begin = int(start * len(whole))
    imported_whole_or_not_at_all(whole[:begin] + filling + whole[begin + length :], whole, tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@QUICK
@given(key=st.integers(0, 10_000), value=JSON, name=st.sampled_from(["manifest.json", RUN_JSON, SUMMARY]))
def test_any_value_changed_anywhere_is_refused_or_taken_whole(exported, tmp_path, key, value, name):
    members = unpacked(exported)
    tree = json.loads(members[name])
    places = list(_places(tree))
    node, last = places[key % len(places)]
    node[last] = value
    members[name] = json.dumps(tree).encode()
    path = packed(tmp_path / "built.zip", members if name == "manifest.json" else signed(members))
    imported_whole_or_not_at_all(path.read_bytes(), b"", tmp_path)


def _places(tree):
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])
