"""What the benchmarks make of figures that are not there."""

from pathlib import Path

import pytest

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
