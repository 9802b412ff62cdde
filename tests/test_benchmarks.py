"""What the benchmarks make of figures that are not there."""

from pathlib import Path

import numpy as np
import pytest

from utseg.evaluate import evaluate_pair
from utseg.label_map import structures
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_case

NAN = float("nan")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))


def test_a_label_that_one_subject_lacks_makes_no_mean_nan(capsys):
    import windows

    def subjects(gain: float) -> dict[str, list[list[list[float]]]]:
        return {"a": [[[0.9 + gain, NAN], [2.0, NAN]]], "b": [[[0.8 + gain, 0.7 + gain], [3.0, 4.0]]]}

    ways = [("focus", "float32"), ("focus", "bfloat16")]
    windows.report(
        {ways[0]: subjects(0), ways[1]: subjects(0.02)}, dict.fromkeys(ways, 1.0), 10, ["LV", "RV"]
    )
    said = capsys.readouterr().out
    assert "nan" not in said
    assert "focus, bfloat16: Dice 0.8450 (+0.0200, +0.0200 … +0.0200), of labels [0.87 0.72]" in said


def test_without_an_installation_the_gpu_has_nothing_to_show(tmp_path, monkeypatch):
    import gpu

    monkeypatch.setattr(gpu, "network_names", list)
    monkeypatch.setattr("sys.argv", ["gpu.py", "parity", "--device", "cpu", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="utseg is not installed"):
        gpu.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["regions", "ignore", "ct", "rgb", "v1", "decathlon"])
def test_made_datasets_are_read_as_they_lie_and_scored_as_by_evaluate(key, tmp_path):
    import peer_datasets
    from peer_phantoms import PHANTOMS, make, write_case

    phantom = PHANTOMS[key]._replace(cases=(1, 1))
    root = make(phantom, tmp_path)
    dataset = open_dataset(root)
    (case,) = dataset.training_cases()
    loaded = read_case(case, dataset.labels)
    names = phantom.about.get("channel_names") or phantom.about["modality"]
    assert len(loaded.image_CZYX) == len(names) == len(dataset.channel_names)
    reference = loaded.label_ZYX
    mask = np.roll(reference, 2, axis=-1)
    if key == "ignore":
        assert 0.4 < (reference == reference.max()).mean() < 1
        return
    for folder, label in (("masks", mask), ("references", reference)):
        (tmp_path / folder).mkdir()
        write_case(phantom, loaded.image_CZYX, label, tmp_path / "image", tmp_path / folder / "case")
    found = peer_datasets.dice(phantom, tmp_path / "masks", tmp_path / "references")
    scores = evaluate_pair(mask, reference, (1, 1, 1), structures(dataset.labels))
    assert found == pytest.approx({name: scores[name]["dice"] for name in found}) and len(found) == len(
        scores
    )
