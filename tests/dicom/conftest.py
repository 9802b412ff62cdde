"""Studies written once, and the command run on them in this process."""

import shutil

import pytest
from dicom_studies import Imported, cine, short_axis

from utseg.commands import import_dicom
from utseg.phantom.dicom import write_dicom_study


@pytest.fixture
def imported(tmp_path, capfd):
    """Runs `utseg_import_dicom` on a folder, in this process."""
    runs = iter(range(100))

    def run(folder, *words) -> Imported:
        output = tmp_path / f"out{next(runs)}"
        capfd.readouterr()
        code = import_dicom.main([str(folder), "-o", str(output), "-np", "1", *map(str, words)])
        out, err = capfd.readouterr()
        return Imported(output, code, out, err)

    return run


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Studies that were written already, by what they are of."""
    return {}, tmp_path_factory.mktemp("written")


@pytest.fixture
def study(tmp_path, written):
    """A study of the small cine: its folder, and the files of the cine."""
    known, place = written

    def write(image=None, affine=None, name="in", **settings):
        settings.setdefault("extras", False)
        image = cine() if image is None else image
        affine = short_axis() if affine is None else affine
        key = image.tobytes(), affine.tobytes(), repr(settings)
        if key not in known:
            folder = place / str(len(known))
            known[key] = folder, write_dicom_study(folder, image, affine, **settings)
        folder, files = known[key]
        shutil.copytree(folder, tmp_path / name, symlinks=True)
        return tmp_path / name, [tmp_path / name / path.relative_to(folder) for path in files]

    return write
