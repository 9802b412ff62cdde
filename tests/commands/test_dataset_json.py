"""Keys of dataset.json, names that nearly match, and the explanation that comes with an error: through the commands."""

import json
import shutil

import pytest
from rawfiles import LABELS, change_json, make_heart, make_mnms, make_nifti, make_nnunet

from utseg.commands import evaluate, plan_and_preprocess, predict

SIZE = (3, 24, 24)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory, tiny_model):
    home = tmp_path_factory.mktemp("pristine") / "home"
    shutil.copytree(tiny_model, home)
    make_nnunet(home / "raw" / "Heart", subjects=2, size_zyx=SIZE)
    return home


@pytest.fixture
def heart(tmp_path, pristine):
    return shutil.copytree(pristine, tmp_path / "home") / "raw" / "Heart"


@pytest.fixture
def plan(heart, capfd):
    """Plans the dataset in this process; returns exit code, warnings and errors."""

    def call(name: str = "Heart") -> tuple[int, list[str], list[str]]:
        home = str(heart.parents[1])
        code = plan_and_preprocess.main(
            ["-d", name, "-pl", "cpu", "-m", "UNet", "-np", "1", "--home", home, "--quiet"]
        )
        lines = capfd.readouterr().err.splitlines()
        assert not any("Traceback" in line for line in lines)
        return (
            code,
            [line for line in lines if line.startswith("warning: ")],
            [line for line in lines if line.startswith("error: ")],
        )

    return call


def test_free_text_and_the_readers_that_read_the_same_are_no_matter(heart, plan):
    text = dict.fromkeys(
        ("name", "description", "reference", "licence", "license", "release", "numTest"), "x"
    )
    change_json(
        heart / "dataset.json", **text, tensorImageSize="4D", overwrite_image_reader_writer="SimpleITKIO"
    )
    assert plan() == (0, [], [])


def test_a_key_that_has_no_effect_is_a_warning(heart, plan):
    change_json(heart / "dataset.json", foreground="x", modality={"0": "MRI"})
    code, warnings, _ = plan()
    assert code == 0
    assert warnings == [
        f"warning: {heart / 'dataset.json'}: keys that are not known and have no effect: foreground, modality"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regions_class_order": [1, 2]}, "regions_class_order: no label is a list of values"),
        ({"region_class_order": [1]}, "region_class_order: unknown key; did you mean 'regions_class_order'?"),
        (
            {"labels": {"background": 0, "heart": [1, 2]}},
            "regions_class_order: expected a list of numbers, what each region paints, in the order of heart; found null",
        ),
        (
            {"labels": {**LABELS, "ignore": 3, "RV": 4}},
            "labels.ignore: expected a value of its own, higher than that of any label, above 4, found 3",
        ),
        ({"overwrite_image_reader_writer": "Tiff3DIO"}, "overwrite_image_reader_writer: 'Tiff3DIO' is not"),
        (
            {"training": [{"image": "a", "label": "b"}]},
            "training: this list of cases is the format of nnU-Net v1",
        ),
        (
            {"test": ["a"]},
            "test: this list of cases is the format of nnU-Net v1 and the Decathlon and is not read",
        ),
        (
            {"file_ending": "nii.gz"},
            "file_ending: expected one of .nii.gz, .nii, .mha, .nrrd, .png, .bmp, .tif, .tiff, found 'nii.gz'; did you mean '.nii.gz'?",
        ),
        ({"file_ending": ".NII.GZ"}, "did you mean '.nii.gz'?"),
        ({"dataset": []}, "dataset: expected an object like"),
        (
            {"dataset": {"a": {"images": ["x"]}}},
            "dataset.a: expected the keys images and label, found the keys images",
        ),
        (
            {"dataset": {"a": {"images": [], "label": "x"}}},
            "dataset.a.images: expected 1, one a channel of channel_names, found 0",
        ),
    ],
)
def test_what_changes_the_meaning_and_is_not_supported_is_refused_by_its_name(heart, plan, changes, message):
    change_json(heart / "dataset.json", **changes)
    code, _, errors = plan()
    assert code == 1 and len(errors) == 1
    assert errors[0].startswith(f"error: {heart / 'dataset.json'}: ") and message in errors[0]


def test_the_older_format_is_planned_from(heart, plan):
    now = json.loads((heart / "dataset.json").read_text())
    older = {
        "modality": {"0": "MRI"},
        "labels": {str(value): name for name, value in now["labels"].items()},
        "training": [
            {"image": f"./imagesTr/{path.name}", "label": f"./labelsTr/{path.name}"}
            for path in sorted((heart / "labelsTr").iterdir())
        ],
        "test": [],
    }
    (heart / "dataset.json").write_text(json.dumps(older))
    code, _, errors = plan()
    assert code == 0 and errors == []


def test_a_key_that_is_there_twice_is_refused(heart, plan):
    text = (
        (heart / "dataset.json")
        .read_text()
        .replace('"labels"', '"labels": {"background": 0, "x": 1}, "labels"')
    )
    (heart / "dataset.json").write_text(text)
    code, _, (error,) = plan()
    assert code == 1 and "labels: this key is there 2 times; keep one" in error


def test_the_dataset_key_names_the_cases_and_where_they_lie(heart, plan, capfd):
    home, elsewhere = heart.parents[1], heart.parents[1] / "elsewhere"
    image, label = make_heart(SIZE, seed=9)
    far = make_nifti(elsewhere / "a.nii.gz", image), make_nifti(elsewhere / "a_seg.nii.gz", label)
    listed = {
        "s00_ED": {"images": ["imagesTr/s00_ED_0000.nii.gz"], "label": "labelsTr/s00_ED.nii.gz"},
        "far": {"images": [str(far[0])], "label": str(far[1])},
        "near": {"images": ["../../elsewhere/a.nii.gz"], "label": "labelsTr/s00_ES.nii.gz"},
    }
    (heart / "cases.csv").unlink()
    change_json(heart / "dataset.json", dataset=listed, numTraining=3)
    code, warnings, errors = plan()
    assert code == 0 and errors == []
    assert any(
        "3 cases are listed and used; 3 others of imagesTr are left out: s00_ES, s01_ED" in w
        for w in warnings
    )
    fingerprint = json.loads((home / "preprocessed" / "Heart" / "fingerprint.json").read_text())
    assert [case["case_id"] for case in fingerprint["cases"]] == ["far", "near", "s00_ED"]
    for folder in ("imagesTr", "labelsTr"):
        shutil.rmtree(heart / folder)
    listed = {"far": listed["far"]}
    change_json(heart / "dataset.json", dataset=listed, numTraining=1)
    words = ["-i", str(heart), "-o", str(home / "masks"), "--device", "cpu", "--home", str(home)]
    assert predict.main(words) == 0 and (home / "masks" / "far.nii.gz").is_file()
    (home / "out").mkdir()
    shutil.copy(far[1], home / "out" / "far.nii.gz")
    words = ["-p", str(home / "out"), "-g", str(heart), "-o", str(home / "scores"), "--home", str(home)]
    assert evaluate.main(words) == 0
    assert json.loads((home / "scores" / "summary.json").read_text())["all"]["mean_dice"] == 1


NOTHING = "no training case with a label among 4 cases"


@pytest.mark.parametrize(
    ("rename", "explanation"),
    [
        (
            lambda name: name.replace(".nii.gz", "_0000.nii.gz"),
            "a label has no channel number: rename s00_ED_0000.nii.gz to s00_ED.nii.gz",
        ),
        (
            str.lower,
            "letter case and ending must be those of the image and file_ending: rename s00_ed.nii.gz to s00_ED.nii.gz",
        ),
        (lambda name: name.replace(".nii.gz", ".NII.GZ"), "rename s00_ED.NII.GZ to s00_ED.nii.gz"),
        (lambda name: name.replace(".nii.gz", ".nii"), "rename s00_ED.nii to s00_ED.nii.gz"),
    ],
)
def test_labels_that_match_no_image_are_explained_with_the_error(heart, plan, rename, explanation):
    for path in (heart / "labelsTr").iterdir():
        path.rename(path.with_name(rename(path.name)))
    code, warnings, (error,) = plan()
    assert code == 1 and NOTHING in error
    assert any("4 labels have no image and are left out" in line and explanation in line for line in warnings)
    assert any("4 images of imagesTr have no label" in line for line in warnings)


def test_images_in_another_spelling_of_their_ending_are_named(heart, plan):
    images = heart / "imagesTr"
    (images / "s01_ED_0000.nii.gz").rename(images / "s01_ED_0000.NII.GZ")
    code, warnings, _ = plan()
    assert code == 0
    assert any("1 files do not end in .nii.gz, the file_ending of dataset.json" in line for line in warnings)
    for path in images.glob("*.nii.gz"):
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    code, _, (error,) = plan()
    assert code == 1 and "no images called CASE_0000.nii.gz" in error and "found s00_ED_0000.NII.GZ" in error


def test_what_systems_leave_in_folders_is_no_matter(heart, plan):
    for folder in (heart, heart / "imagesTr", heart / "labelsTr"):
        for name in (".DS_Store", "._s00_ED_0000.nii.gz", "._s00_ED.nii.gz", "Thumbs.db", "._dataset.json"):
            (folder / name).write_bytes(b"\0\5\x16\7")
    assert plan() == (0, [], [])


def test_images_whose_names_begin_with_a_dot_are_named(heart, plan):
    images, labels = heart / "imagesTr", heart / "labelsTr"
    (images / "s01_ED_0000.nii.gz").rename(images / ".s01_ED_0000.nii.gz")
    (labels / "s01_ED.nii.gz").rename(labels / ".s01_ED.nii.gz")
    code, warnings, _ = plan()
    assert code == 0
    for folder, name in ((images, ".s01_ED_0000.nii.gz"), (labels, ".s01_ED.nii.gz")):
        assert any(f"{folder}: 1 images are left out" in line and name in line for line in warnings)


def test_codes_in_another_letter_case_are_refused_as_such(heart, plan, capfd):
    table = heart / "cases.csv"
    table.write_text(table.read_text().replace("s00_ED", "S00_ed"))
    code, _, (error,) = plan()
    assert code == 1
    assert (
        f"{table}: the letter case of 1 names differs: 'S00_ed' in the table, 's00_ED' on disk; write them alike"
        in error
    )
    mnms = make_mnms(heart.with_name("MnM"), subjects=2, size_zyx=SIZE)
    (csv,) = mnms.glob("*.csv")
    csv.write_text(
        csv.read_text().lower().replace("external code", "External code").replace(",ed,es", ",ED,ES")
    )
    code, _, (error,) = plan("MnM")
    assert (
        code == 1
        and "'a0b0c0' in the table, 'A0B0C0' on disk, 'a1b1c1' in the table, 'A1B1C1' on disk" in error
    )


def test_masks_in_another_letter_case_are_named_as_such(heart, capfd):
    home = heart.parents[1]
    shutil.copytree(heart / "labelsTr", home / "out")
    (home / "out" / "s00_ED.nii.gz").rename(home / "out" / "S00_ed.nii.gz")
    words = ["-p", str(home / "out"), "-g", str(heart), "-o", str(home / "scores"), "--home", str(home)]
    assert evaluate.main(words) == 1
    assert "'s00_ED' in the references, 'S00_ed' among the predictions" in capfd.readouterr().err


def test_a_compressed_file_called_nii_says_what_it_is(heart, plan):
    for path in [*heart.glob("*Tr/*.nii.gz")]:
        path.rename(path.with_suffix(""))
    change_json(heart / "dataset.json", file_ending=".nii")
    code, _, errors = plan()
    assert code == 1 and all("begins like a gzip file; rename it to .nii.gz" in line for line in errors)


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_other_commands_repeat_the_warnings_that_explain_their_error_too(heart, capfd, command):
    home = heart.parents[1]
    (home / "out").mkdir()
    for path in (heart / "labelsTr").iterdir():
        path.rename(path.with_name(path.name.replace(".nii.gz", "_0000.nii.gz")))
        shutil.copy(
            heart / "labelsTr" / path.name.replace(".nii.gz", "_0000.nii.gz"), home / "out" / path.name
        )
    if command == "evaluate":
        words = ["-p", str(home / "out"), "-g", str(heart), "-o", str(home / "scores")]
        assert evaluate.main([*words, "--home", str(home)]) == 1
    else:
        words = ["-i", str(heart), "-o", str(home / "masks"), "--device", "cpu"]
        assert predict.main([*words, "--home", str(home)]) == 0
    lines = capfd.readouterr().err.splitlines()
    said = [line for line in lines if "a label has no channel number" in line]
    assert len(said) == 1 and said[0].startswith("warning: ")


@pytest.mark.parametrize("place", ["imagesTr/s00_ED_0000.nii.gz", "labelsTr/s00_ED.nii.gz"])
def test_a_folder_that_is_called_like_a_file_is_named_as_one(heart, plan, place):
    (heart / place).unlink()
    (heart / place).mkdir()
    code, _, (error,) = plan()
    assert code == 1 and f"{heart / place}: could not be read (Is a directory)" in error


def test_a_folder_without_images_or_labels_says_what_is_there(heart, capfd):
    home, folder = heart.parents[1], heart.parents[1] / "upper"
    (folder / "b.nii.gz").mkdir(parents=True)
    (folder / "a.NII.GZ").touch()
    assert predict.main(["-i", str(folder), "-o", str(home / "masks"), "--home", str(home)]) == 1
    assert "no image is there; expected files that end in .nii.gz" in (said := capfd.readouterr().err)
    assert "found a.NII.GZ, b.nii.gz/" in said
    words = ["-p", str(home / "out"), "-g", str(folder), "-o", str(home / "scores"), "-d", "Heart"]
    (folder / "b.nii.gz").rmdir()
    (home / "out").mkdir()
    (home / "out" / "a.nii.gz").touch()
    assert evaluate.main([*words, "--home", str(home)]) == 1
    assert (
        "no reference label is there (expected CASE.nii.gz files or a raw dataset); found a.NII.GZ"
        in capfd.readouterr().err
    )
