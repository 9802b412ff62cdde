"""Raw data: folders become a `Dataset` of `Case`s, and the gate is the one way to read an image or a label.

`open_dataset` looks at names, tables and `dataset.json` only. Pixels are read, and checked, by `utseg.rawdata.gate`, which is imported
where it is needed because it needs numpy and nibabel.
"""

from utseg.rawdata.layouts import dataset_around, is_dataset, open_dataset, require_outside_datasets

__all__ = ["dataset_around", "is_dataset", "open_dataset", "require_outside_datasets"]
