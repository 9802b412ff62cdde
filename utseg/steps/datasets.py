"""`raw_dataset`: the dataset that a name means, opened."""

from utseg.case import Dataset
from utseg.home import FilePath, Home
from utseg.rawdata import open_dataset


def raw_dataset(name: str | None = None, home: FilePath | None = None) -> Dataset:
    """The raw dataset of that name below `home`, or the only one there. Raises as `open_dataset`, UsageError where several are there."""
    found, folder = Home.locate(home).raw_dataset(name)
    return open_dataset(folder, found)


def named_dataset(dataset: Dataset | str | None, home: FilePath | None = None) -> Dataset | None:
    """The dataset that is given, opened or by its name below `home`; None where none is. Raises as `raw_dataset`."""
    return raw_dataset(dataset, home) if isinstance(dataset, str) else dataset
