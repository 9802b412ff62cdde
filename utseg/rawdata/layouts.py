"""Opens a raw dataset: recognises its layout by what is in the folder and hands over to the reader of that layout.

No pixel is checked here; see `utseg.rawdata.gate`.
"""

from pathlib import Path

from utseg.case import Dataset
from utseg.errors import InputError
from utseg.files import require_no_broken_link
from utseg.rawdata import acdc, mnms, nnunet
from utseg.rawdata.content import dicom_in, dicom_refusal
from utseg.rawdata.description import DESCRIPTION_FILE

LEVELS_UP = 4
"""From a subject's folder to its dataset: OpenDataset/Training/Labeled/CODE."""


def is_dataset(folder: Path) -> bool:
    """Whether a folder has the sub-folders of one of the layouts; it may still turn out wrong when opened.

    A folder with `dataset.json` and no images is none: it may be a plain folder of files whose labels that names.
    """
    return nnunet.has_images(folder) or mnms.looks_like(folder) or acdc.looks_like(folder)


def dataset_around(folder: Path) -> Path | None:
    """The dataset that a folder is, or of whose layout it is a part (labelsTr, Testing, Training/Labeled/CODE); None for any other folder.

    Folders may be symbolic links: both the path as it is given and the one it leads to are looked at.
    """
    for start in dict.fromkeys((folder.absolute(), folder.resolve())):
        if (root := acdc.root_of(start)) is not None:
            return root
        if is_dataset(start):
            return start
        for root in start.parents[:LEVELS_UP]:
            if nnunet.has_images(root) and start.parent == root and start.name in nnunet.FOLDERS:
                return root
            if mnms.looks_like(root) and mnms.is_partition(start, root):
                return root
    return None


def require_outside_datasets(output: Path) -> None:
    """Raises InputError where an output is, or lies in, a raw dataset: those are never written to."""
    for start in dict.fromkeys((output.absolute(), output.resolve())):
        for folder in (start, *start.parents):
            # A folder that merely has an `imagesTs` or `Training` is none: outputs may lie in a home folder with one.
            nnunet_there = (folder / DESCRIPTION_FILE).is_file() and nnunet.has_images(folder)
            if nnunet_there or mnms.has_subjects(folder) or acdc.looks_like(folder):
                raise InputError(
                    f"{output}: the output lies in the raw dataset {folder}, which is never written to; choose another place"
                )


def open_dataset(folder: Path, name: str | None = None) -> Dataset:
    """The dataset in a folder, in the native M&Ms, the native ACDC or the nnU-Net layout. `name` is the folder's where it is not given.

    Raises InputError where the folder is missing or of no layout, SettingError for a wrong `dataset.json`, CaseErrors for cases that
    cannot be told apart. What is merely odd is in `Dataset.warnings`.
    """
    if not require_no_broken_link(folder).is_dir():
        raise InputError(f"{folder}: not a folder; expected a dataset in the M&Ms, ACDC or nnU-Net layout")
    name = name or folder.resolve().name
    readers = {
        "nnU-Net (imagesTr or dataset.json)": (nnunet.looks_like, nnunet.open_nnunet),
        "M&Ms (Training, Validation or Testing)": (mnms.looks_like, mnms.open_mnms),
        "ACDC (patients with Info.cfg)": (acdc.looks_like, acdc.open_acdc),
    }
    suited = {layout: reader for layout, (looks_like, reader) in readers.items() if looks_like(folder)}
    if len(suited) > 1:
        raise InputError(f"{folder}: has folders of several layouts: {', '.join(suited)}; keep one")
    for reader in suited.values():
        return reader(folder, name)
    for entry in sorted(folder.iterdir()):
        require_no_broken_link(entry)
    if dicom_in(folder) is not None:
        raise dicom_refusal(folder)
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise InputError(
        f"{folder}: not a raw dataset: expected dataset.json with imagesTr and labelsTr (nnU-Net), Training, Validation or Testing "
        f"with a CSV (M&Ms), or training/patient001/Info.cfg (ACDC); found {found}; raw_data_template/ shows them"
    )
