"""Opens a raw dataset: recognises its layout by what is in the folder and hands over to the reader of that layout.

No pixel is checked here; see `utseg.rawdata.gate`.
"""

from pathlib import Path

from utseg.case import Dataset
from utseg.errors import InputError
from utseg.rawdata.mnms import looks_like as looks_like_mnms
from utseg.rawdata.mnms import open_mnms
from utseg.rawdata.nnunet import looks_like as looks_like_nnunet
from utseg.rawdata.nnunet import open_nnunet


def is_dataset(folder: Path) -> bool:
    """Whether a folder has the sub-folders or files of one of the layouts; it may still turn out wrong when opened."""
    return looks_like_nnunet(folder) or looks_like_mnms(folder)


def open_dataset(folder: Path, name: str | None = None) -> Dataset:
    """The dataset in a folder, in the native M&Ms or the nnU-Net layout. `name` is the folder's where it is not given.

    Raises InputError where the folder is missing or of neither layout, SettingError for a wrong `dataset.json`, CaseErrors for cases that
    cannot be told apart. What is merely odd is in `Dataset.warnings`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder; expected a raw dataset in the M&Ms or the nnU-Net layout")
    name = name or folder.resolve().name
    is_nnunet, is_mnms = looks_like_nnunet(folder), looks_like_mnms(folder)
    if is_nnunet and is_mnms:
        raise InputError(
            f"{folder}: has the folders of both layouts (imagesTr or dataset.json, and Training, Validation or Testing); "
            "keep one of them"
        )
    if is_nnunet:
        return open_nnunet(folder, name)
    if is_mnms:
        return open_mnms(folder, name)
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{folder}: not a raw dataset: expected dataset.json with imagesTr and labelsTr (nnU-Net), or Training, Validation or Testing "
        f"with a CSV (M&Ms); found {found}; raw_data_template/ shows both"
    )
