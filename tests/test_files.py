"""Leftovers of killed processes: ours are cleared away, those of others never."""

import pytest

from utseg.files import remove_leftovers

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
