"""Labels are matched by name wherever two files number them differently; where names do not match, the command refuses in a line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tiny_models import make_run_folder

from utseg.commands.ensemble import main as ensemble
from utseg.commands.predict import main as predict
from utseg.runs import read_run, read_weights, write_run, write_weights

MNMS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
ACDC = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}
SCAR = {"background": 0, "LV": 1, "MYO": 2, "scar": 3}
SWAPPED = np.array([0, 3, 2, 1], np.uint8)
"""M&Ms' values in ACDC's, and the other way round."""
Call = Callable[..., tuple[int, list[str], str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command's `main` in this process; exit code, error lines, all that was said."""
    monkeypatch.setattr("utseg.predict.pipeline.WITHOUT_POOL", 10)

    def run(main: Callable[[list[str]], int], *words: object) -> tuple[int, list[str], str]:
        code = main([str(word) for word in words])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        return code, errors, captured.out + captured.err

    return run


def renumber_run(folder: Path, labels: dict[str, int], order: list[int]) -> None:
    """The same model of a plan that numbers labels otherwise: the rows of its heads change places."""
    weights = read_weights(folder)
    heads = {name: value[order] for name, value in weights.items() if name.startswith("heads.")}
    write_weights(weights | heads, folder)
    record = read_run(folder)
    write_run(record.model_copy(update={"plan": record.plan.model_copy(update={"labels": labels})}), folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three homes with a UTNet and a UNet, the UNet numbered as the UTNet, as ACDC, and with a label of its own; and a scan."""
    root = tmp_path_factory.mktemp("models")
    for seed, model in enumerate(("UTNet", "UNet")):
        folder = make_run_folder(root / "same/results/Tiny", model, seed=seed)
        (folder / "validation").mkdir()
        (folder / "validation" / "summary.json").write_text("{}")
    for home, labels, order in (("other", ACDC, [0, 3, 2, 1]), ("scar", SCAR, [0, 1, 2, 3])):
        shutil.copytree(root / "same", root / home)
        renumber_run(root / home / "results/Tiny/auto_2d/UNet/fold0", labels, order)
    image = np.random.default_rng(0).integers(0, 900, (36, 34, 3)).astype(np.int16)
    (root / "scans").mkdir()
    nibabel.save(nibabel.Nifti1Image(image, np.diag([1.4, 1.4, 9.0, 1])), root / "scans/a.nii.gz")
    return root


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj).astype(np.uint8)


def test_models_of_two_numberings_predict_together_by_name(models, tmp_path, call):
    def together(home: str, *names: str) -> np.ndarray:
        words = ("-i", models / "scans", "-o", tmp_path / home, "--home", models / home, "--device", "cpu")
        code, errors, said = call(predict, *words, "-m", *names)
        assert (code, errors) == (0, [])
        assert ("labels matched by name: LV 1 = LV 3, MYO 2 = MYO 2, RV 3 = RV 1" in said) == (
            home == "other"
        )
        assert json.loads((tmp_path / home / "prediction.json").read_text())["labels"] == MNMS
        return voxels(tmp_path / home / "a.nii.gz")

    same = together("same", "UTNet", "UNet")
    assert len(np.unique(same)) > 1
    np.testing.assert_array_equal(together("other", "UTNet", "UNet"), same)


def test_models_with_other_names_do_not_predict_together(models, tmp_path, call):
    words = ("-i", models / "scans", "-o", tmp_path / "out", "--home", models / "scar", "--device", "cpu")
    code, errors, _ = call(predict, *words, "-m", "UTNet", "UNet")
    assert code == 1 and len(errors) == 1
    assert "labels do not match by name: LV 1, MYO 2, RV 3 in Tiny/auto_2d/UTNet/fold0" in errors[0]
    assert "no counterpart for RV, scar" in errors[0]
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_an_ensemble_maps_channels_by_name(models, tmp_path, call):
    for home, name in (("same", "UTNet"), ("same", "UNet"), ("other", "UNet"), ("scar", "UNet")):
        words = ("-i", models / "scans", "-o", tmp_path / f"{home}_{name}", "--home", models / home)
        assert call(predict, *words, "--device", "cpu", "-m", name, "--save-probabilities")[0] == 0
    joined = {}
    for home in ("same", "other"):
        members = tmp_path / f"{home}_UNet", tmp_path / "same_UTNet"
        code, _, said = call(ensemble, "-i", *members, "-o", tmp_path / home)
        assert code == 0 and ("matched by name: RV 1 = RV 3, MYO 2 = MYO 2, LV 3 = LV 1" in said) == (
            home == "other"
        )
        labels = json.loads((tmp_path / home / "prediction.json").read_text())["labels"]
        joined[home] = {name: voxels(tmp_path / home / "a.nii.gz") == value for name, value in labels.items()}
    assert all(np.array_equal(joined["other"][name], mask) for name, mask in joined["same"].items())
    code, errors, _ = call(
        ensemble, "-i", tmp_path / "scar_UNet", tmp_path / "same_UTNet", "-o", tmp_path / "no"
    )
    assert code == 1 and "no counterpart for RV, scar" in errors[0] and not (tmp_path / "no").exists()
