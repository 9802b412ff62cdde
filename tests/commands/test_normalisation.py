"""What the names of channels make of their values: from raw files through the command to slices, and to what a network is shown."""

import numpy as np
import pytest
from rawfiles import SPACING_ZYX_MM, change_json, make_heart, make_nifti, make_nnunet

from utseg.case import Case
from utseg.commands import plan_and_preprocess
from utseg.planning.plan import Plan, read_plan
from utseg.predict.stages import Volume, prepare
from utseg.preprocess.slices import SliceStore

NAMES = ("CT", "LGE", "noNorm", "rescale_to_0_1", "rgb_to_0_1", "RGB_to_0_1")
SIZE = (3, 24, 24)
CASES = [f"s{number:02d}_{phase}" for number in range(3) for phase in ("ED", "ES")]


def raw_case(case: str) -> tuple[np.ndarray, np.ndarray]:
    """Channels (C, Z, Y, X) in their own types' ranges, CT with values below 0, and the label."""
    number, contraction = int(case[1:3]), float(case.endswith("ES"))
    image, label = make_heart(SIZE, seed=number, contraction=contraction)
    heart = image.astype(np.float64)
    rng = np.random.default_rng(number)
    lung = np.where(label == 0, -1000, 0)
    channels = [
        4 * heart + lung + 25 * number - 500,
        heart * (1 + number),
        heart / 4,
        heart + 7,
        heart,
        255 - heart,
    ]
    return np.stack([values + rng.integers(0, 2, SIZE) for values in channels]).clip(-2000, 255 * 8), label


def float64_oracle(
    name: str, values: np.ndarray, foreground: np.ndarray, clip: tuple[float, float]
) -> np.ndarray:
    match name.casefold():
        case "ct":
            low, high = np.percentile(foreground, (0.5, 99.5))
            return (np.clip(values, low, high) - foreground.mean()) / foreground.std()
        case "nonorm":
            return values
        case "rescale_to_0_1":
            return (values - values.min()) / (values.max() - values.min())
        case "rgb_to_0_1":
            return values / 255
    clipped = np.clip(values, *np.percentile(values, clip))
    return (clipped - clipped.mean()) / clipped.std()


def run(home, *more: str) -> int:
    spacing = "preprocessing.spacing_yx_mm=" + ",".join(map(str, SPACING_ZYX_MM[1:]))
    words = [
        "-d",
        "Six",
        "-pl",
        "cpu",
        "-m",
        "UNet",
        "-np",
        "1",
        "--home",
        str(home),
        "--quiet",
        "--set",
        spacing,
        *more,
    ]
    return plan_and_preprocess.main(words)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("six") / "home"
    folder = make_nnunet(home / "raw" / "Six", subjects=3, channels=len(NAMES), size_zyx=SIZE)
    for case in CASES:
        channels, label = raw_case(case)
        for number, values in enumerate(channels):
            kind = np.float32 if number == 2 else np.int16
            make_nifti(folder / "imagesTr" / f"{case}_{number:04d}.nii.gz", values.astype(kind))
        make_nifti(folder / "labelsTr" / f"{case}.nii.gz", label)
    change_json(folder / "dataset.json", channel_names={str(n): name for n, name in enumerate(NAMES)})
    assert run(home) == 0
    return home


@pytest.fixture(scope="module")
def plan(home) -> Plan:
    return read_plan(home / "preprocessed" / "Six" / "cpu_2d")


def foreground() -> np.ndarray:
    pairs = [raw_case(case) for case in CASES]
    return np.concatenate([channels[0][label > 0] for channels, label in pairs])


def test_slices_hold_what_the_names_ask_for(home, plan) -> None:
    store, voxels = SliceStore(home / "preprocessed" / "Six" / "cpu_2d"), foreground()
    assert voxels.min() < 0
    for case in CASES:
        record = store.case_record(case)
        image, label = store.read_case(record)
        channels, expected_label = raw_case(case)
        np.testing.assert_array_equal(label, expected_label)
        for number, name in enumerate(NAMES):
            expected = float64_oracle(name, channels[number], voxels, plan.preprocessing.clip_percentiles)
            np.testing.assert_allclose(
                image[number], expected, rtol=1e-4, atol=2e-3 if name == "CT" else 1e-4
            )
            done = record.properties.normalisation[number]
            again = (np.clip(channels[number], done.lower, done.upper) - done.mean) / done.sd
            np.testing.assert_allclose(image[number], again, rtol=1e-4, atol=1e-4)


def test_the_plan_says_what_is_done_and_why(plan) -> None:
    ct, *others = plan.preprocessing.normalisation
    assert others == ["z-score", "noNorm", "rescale_to_0_1", "rgb_to_0_1", "rgb_to_0_1"]
    reason, voxels = plan.reasons["preprocessing.normalisation"], foreground()
    for figure in (ct.lower, ct.upper, ct.mean, ct.sd):
        assert str(figure) in reason
    assert f"0.5 and 99.5 percentiles of the {voxels.size:,} labelled voxels of 6 cases" in reason
    for number, name in enumerate(NAMES):
        assert f"channel {number} ({name}) " in reason
    units = plan.augmentation.intensity_unit
    assert units[:2] == (1, 1)
    for number, scale in ((2, 1), (4, 255)):
        deviations = [raw_case(case)[0][number].std() / scale for case in CASES]
        assert units[number] == pytest.approx(np.median(deviations), rel=1e-3)


def test_a_scan_to_predict_is_normalised_by_the_numbers_of_training(home, plan, tmp_path) -> None:
    channels, label = raw_case("s01_ED")

    def shown(factor: float) -> np.ndarray:
        names = [f"{factor}_{number:04d}.nii.gz" for number in range(len(NAMES))]
        for name, each in zip(
            names, [channels[0] * factor, channels[1] * factor, *channels[2:]], strict=True
        ):
            make_nifti(tmp_path / name, each.astype(np.float32))
        case = Case("new", "new", tuple(tmp_path / name for name in names))
        return prepare(Volume(case, None, 1, (plan.preprocessing,))).images[0]

    same, halved = shown(1.0), shown(0.5)
    store = SliceStore(home / "preprocessed" / "Six" / "cpu_2d")
    np.testing.assert_allclose(same, store.read_case(store.case_record("s01_ED"))[0], atol=1e-5)
    expected = float64_oracle("CT", channels[0] * 0.5, foreground(), (0, 0))
    np.testing.assert_allclose(halved[0], expected, rtol=1e-4, atol=2e-3)
    assert np.abs(halved[0] - same[0])[label > 0].mean() > 0.2
    np.testing.assert_allclose(halved[1:], same[1:], atol=1e-4)


def test_what_a_name_cannot_be_right_for_is_refused(tmp_path, capfd) -> None:
    folder = make_nnunet(tmp_path / "raw" / "Six", subjects=1, size_zyx=SIZE)
    image, label = make_heart(SIZE)
    make_nifti(folder / "imagesTr" / "s00_ED_0000.nii.gz", (image.astype(np.int16) + 40).astype(np.int16))
    change_json(folder / "dataset.json", channel_names={"0": "rgb_to_0_1"})
    assert run(tmp_path) == 1
    line = capfd.readouterr().err
    assert "case s00_ED: channel 0: rgb_to_0_1 expects values from 0 to 255, found " in line
    assert not (tmp_path / "preprocessed" / "Six" / "cpu_2d").exists()
    change_json(folder / "dataset.json", channel_names={"0": "CT"})
    for case in CASES[:2]:
        make_nifti(folder / "labelsTr" / f"{case}.nii.gz", 0 * label)
    assert run(tmp_path) == 1
    assert "channel 0 is called CT" in capfd.readouterr().err
