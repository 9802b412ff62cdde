"""No command writes into a raw dataset, of whatever layout, by whatever path; beside one it may."""

import pytest
from commandline import assert_refused, run_here
from rawfiles import make_acdc, make_mnms, make_nnunet

COMMANDS = {
    "utseg_predict": ("-i", "IN", "-d", "Heart", "-m", "UNet", "-o"),
    "utseg_evaluate": ("-p", "IN", "-g", "RAW", "-o"),
    "utseg_measure": ("-i", "IN", "-o"),
    "utseg_ensemble": ("-i", "IN", "OTHER", "-o"),
    "utseg_report": ("IN", "-o"),
    "utseg_study": ("vendors", "-d", "Heart", "-o"),
    "utseg_export_model": ("-d", "Heart", "-o"),
    "utseg_make_phantom": ("--subjects", 4),
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs") / "raw"
    make_nnunet(folder / "nnunet", subjects=1)
    make_mnms(folder / "mnms", subjects=1)
    make_acdc(folder / "acdc", subjects=1)
    return folder


def files(folder):
    return sorted(path for path in folder.rglob("*"))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_in_a_raw_dataset_is_refused(raw, tmp_path, command):
    before = files(raw)
    place = raw / "nnunet" / "labelsTs"
    assert_refused(
        run_here(command, *COMMANDS[command], place, home=tmp_path), f"raw dataset {raw / 'nnunet'}", "never"
    )
    assert files(raw) == before


@pytest.mark.parametrize("layout", ["mnms", "acdc"])
def test_so_it_is_in_every_layout_and_behind_a_link(raw, tmp_path, layout):
    (tmp_path / "link").symlink_to(raw / layout)
    for place in (raw / layout, raw / layout / "a" / "b", tmp_path / "link" / "a"):
        assert_refused(
            run_here("utseg_ensemble", "-i", "IN", "OTHER", "-o", place), f"{place}: ", "raw dataset"
        )


def test_beside_a_dataset_and_in_a_folder_that_is_merely_called_so_it_is_not(raw, tmp_path):
    (tmp_path / "Training").mkdir()
    (tmp_path / "imagesTs").mkdir()
    for place in (raw / "scores", tmp_path / "out"):
        result = run_here("utseg_ensemble", "-i", "IN", "OTHER", "-o", place)
        assert result.returncode == 1 and "raw dataset" not in result.stderr
