"""Leftovers of killed processes: ours are cleared away, those of others never. A folder is held by one process."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from utseg import files
from utseg.errors import CaseErrors, FolderBusy, InputError, UtsegError
from utseg.files import folder_lock, read_json, remove_leftovers, write_together

OURS = (".tmp-0123456789ab-mask.nii.gz", "deeper/.tmp-ba9876543210-slices/part.npy")
FOREIGN = (
    ".tmp-notes",
    ".tmp-0123-x",
    ".tmp-0123456789AB-x",
    "deeper/.tmp-of-others/file",
    "x.tmp-0123456789ab-y",
)


@pytest.mark.parametrize("recursive", [True, False])
def test_only_what_is_called_as_ours_is_removed(tmp_path, recursive):
    for name in (*OURS, *FOREIGN):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, recursive=recursive)
    assert all((tmp_path / name).exists() for name in FOREIGN)
    assert not (tmp_path / OURS[0]).exists()
    assert (tmp_path / OURS[1]).exists() is not recursive


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "new"),
        lambda path: files.atomic_folder(path).__enter__(),
        lambda path: files.scratch_folder(path).__enter__(),
    ],
)
def test_a_writer_removes_what_killed_writers_of_its_file_left_and_no_other(tmp_path, write):
    left = [tmp_path / ".tmp-0123456789ab-a.csv", tmp_path / ".tmp-ba9876543210-a.csv"]
    others = [
        tmp_path / name for name in (".tmp-0123456789ab-b.csv", ".tmp-notes", ".tmp-aaaaaaaaaaaa-a.csv")
    ]
    left[0].mkdir()
    for path in (left[0] / "part", left[1], *others):
        path.touch()
    for path in (*left, *others[:2]):
        os.utime(path, (0, 0))  # the last was written just now, maybe by a process that is at work
    kept = write(tmp_path / "a.csv")
    assert not any(path.exists() for path in left) and all(path.exists() for path in others), kept


def test_what_may_not_be_removed_is_in_nobodys_way(tmp_path, monkeypatch):
    """As what another user's killed command left in a folder in which each may remove only what is his (/tmp, say)."""
    left = tmp_path / ".tmp-0123456789ab-a.csv"
    left.touch()
    os.utime(left, (0, 0))
    remove = Path.unlink

    def unlink(path, missing_ok=False):
        if path == left:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        remove(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    files.write_text(tmp_path / "a.csv", "new")
    assert (tmp_path / "a.csv").read_text() == "new" and left.exists()


HOLD = """
import sys
from pathlib import Path
from utseg.files import folder_lock
with folder_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_is_held_is_refused_until_its_process_ends(tmp_path):
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with (
            pytest.raises(FolderBusy, match=rf"another run is working there \(process {holder.pid}\)"),
            folder_lock(tmp_path),
        ):
            pass
        holder.kill()
    with folder_lock(tmp_path, patience_s=20):
        pass


def test_a_file_system_without_locks_is_not_another_run(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with pytest.raises(InputError, match=r"no locks.*No locks available"), folder_lock(tmp_path):
        pass


def test_the_umask_says_who_may_read_and_write_what_is_written(tmp_path):
    """In a folder of a group, whose members lock it and replace each other's files."""
    before = os.umask(0o002)
    try:
        files.write_text(tmp_path / "a.json", "{}")
        with folder_lock(tmp_path), files.atomic_folder(tmp_path / "case") as folder:
            (folder / "slice").touch()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"a.json": 0o664, ".lock": 0o664, "case": 0o775, "slice": 0o664}


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 100_000, '{"a": 1'])
def test_json_that_python_cannot_read_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("fails", ["write", "fsync", "rename"])
def test_files_that_are_one_result_are_replaced_together_or_are_no_result(tmp_path, monkeypatch, fails):
    """At every call that fails: all as before, or without the last ones."""
    names = ("a.csv", "b.csv", "c.csv", "gate.csv", "summary.json")
    paths = [tmp_path / name for name in names]
    last = paths[3:]
    old = dict.fromkeys(paths, "old")
    new = dict.fromkeys(paths, "new") | {paths[1]: None}
    whole = old, {path: text for path, text in new.items() if text}
    owner, call = {"write": (Path, "write_bytes"), "fsync": (os, "fsync"), "rename": (Path, "replace")}[fails]

    def there():
        return {path: path.read_text() for path in paths if path.exists()}

    for nth in range(1, 20):
        write_together(old, last)
        assert there() == old
        real, left = getattr(owner, call), [nth]

        def failing(*arguments, real=real, left=left, **more):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(owner, call, failing)
            try:
                write_together(new, last)
            except UtsegError as error:
                assert "could not be written" in str(error)
        found = there()
        assert not list(tmp_path.glob(".tmp-*"))
        if left[0] > 0:  # fewer calls than that
            assert found == whole[1] and nth > 1
            return
        assert found in whole or last[1] not in found, (nth, found)
        assert found == old or last[0] not in found or set(found.values()) == {"new"}, (nth, found)


def test_a_line_of_an_error_ends():
    for error in (InputError("x" * 10**6), CaseErrors(["x" * 10**6])):
        (line,) = error.lines()
        assert len(line) < 2100 and line.endswith("… (1000000 characters)")
