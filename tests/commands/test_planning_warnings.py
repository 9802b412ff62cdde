"""What planning warns of in a whole dataset, through the command: figures that contradict its tables or its other scans."""

import nibabel as nib
import pytest
from commandline import run_here
from rawfiles import edit_header, make_acdc, make_affine, make_heart, make_nifti, make_nnunet


def warnings_of(home, word):
    """The warnings that hold a word, of planning that succeeds."""
    result = run_here(
        "utseg_plan_and_preprocess", "-d", "Heart", "-pl", "cpu", "-m", "UNet", "--dry-run", home=home
    )
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if line.startswith("warning: ") and word in line]


@pytest.mark.parametrize("patients", [("patient001",), ("patient001", "patient002", "patient003")])
def test_ed_and_es_exchanged_in_info_cfg_are_named(tmp_path, patients):
    folder = make_acdc(tmp_path / "raw" / "Heart", subjects=3)
    assert not warnings_of(tmp_path, "exchanged")
    for patient in patients:
        (info,) = folder.rglob(f"{patient}/Info.cfg")
        info.write_text(info.read_text().replace("ED: 1\nES: 3", "ED: 3\nES: 1"))
    (line,) = warnings_of(tmp_path, "exchanged")
    named = f"in {len(patients)} of 3 subjects ({', '.join(patients)})"
    assert line == f"warning: LV is larger at ES than at ED {named}: are ED and ES exchanged?"


def test_ed_and_es_exchanged_in_a_table_are_named(tmp_path):
    table = make_nnunet(tmp_path / "raw" / "Heart", subjects=2) / "cases.csv"
    table.write_text(
        table.read_text().replace("s01,ED", "s01,XX").replace("s01,ES", "s01,ED").replace(",XX", ",ES")
    )
    (line,) = warnings_of(tmp_path, "exchanged")
    assert "in 1 of 2 subjects (s01)" in line


def with_spacing(*spacing_xyz):
    """The same scan with other spacings in its header."""

    def edit(header):
        header["pixdim"][1:4] = spacing_xyz
        header["sform_code"] = 0

    return edit


def test_a_spacing_far_from_the_others_is_named(tmp_path):
    folder = make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    for path in folder.rglob("s01_ES*.nii.gz"):
        edit_header(path, with_spacing(1.25, 5, 8))
    (line,) = warnings_of(tmp_path, "spacing (z, y, x) is")
    assert "median of all cases, 8 × 1.5 × 1.25 mm, in 1 of 4: s01_ES (8 × 5 × 1.25 mm): check" in line
    for path in folder.rglob("s01_ES*.nii.gz"):
        edit_header(path, with_spacing(1.25, 4, 8))
    assert not warnings_of(tmp_path, "spacing (z, y, x) is")


@pytest.mark.parametrize("subjects", [1, 2])
def test_spacings_in_another_order_are_named_with_the_axis_that_became_the_slices(tmp_path, subjects):
    folder = make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    assert not warnings_of(tmp_path, "narrow")
    number = 2 * subjects
    for case in [f"s{subject:02d}_{phase}" for subject in range(subjects) for phase in ("ED", "ES")]:
        for path in folder.rglob(f"{case}*.nii.gz"):
            edit_header(path, with_spacing(8, 1.5, 1.5))
    (line,) = warnings_of(tmp_path, "narrow")
    assert (
        f"{number} files: has narrow slices: check the order of the spacings in the header (first: " in line
    )
    assert (
        "slices along x, of the largest spacing: 36 slices, 8 mm apart, of 6 × 40 pixels of 1.5 × 1.5 mm"
        in line
    )


def test_oblong_slices_are_named(tmp_path):
    folder = make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    image, label = make_heart((6, 20, 100))
    for path, voxels in (("imagesTr/s00_ED_0000.nii.gz", image), ("labelsTr/s00_ED.nii.gz", label)):
        make_nifti(folder / path, voxels)
    (line,) = warnings_of(tmp_path, "narrow")
    assert "s00_ED_0000.nii.gz: has narrow" in line and "along z, of the largest spacing: 6 slices" in line


def test_values_of_a_group_that_differ_in_case_or_blanks_only_are_named(tmp_path):
    table = make_nnunet(tmp_path / "raw" / "Heart", subjects=3) / "cases.csv"
    assert not warnings_of(tmp_path, "is written")
    table.write_text(
        table.read_text().replace("s00,ED,A,1", "s00,ED,GE 1,1").replace("s00,ES,A,1", "s00,ES,ge1,1")
    )
    (line,) = warnings_of(tmp_path, "is written")
    assert line == "warning: vendor is written 'GE 1' and 'ge1', which count as different: write them alike"


def test_oblique_scans_that_lie_one_way_are_no_mixed_orientations(tmp_path):
    folder = make_nnunet(tmp_path / "raw" / "Heart", subjects=2)
    for subject, angle in (("s00", 0.7), ("s01", 0.9)):  # either side of 45°: the letters differ
        affine = make_affine(angles=(angle, 0, 0))
        for path in folder.rglob(f"{subject}_*.nii.gz"):
            edit_header(
                path, lambda header, affine=affine: (header.set_sform(affine), header.set_qform(affine))
            )
    codes = {"".join(nib.aff2axcodes(nib.load(path).affine)) for path in folder.rglob("s0*.nii.gz")}
    assert len(codes) == 2
    assert not warnings_of(tmp_path, "orientations")
    for path in folder.rglob("s01_*.nii.gz"):
        edit_header(path, lambda header: header.set_sform(make_affine() * [-1, 1, 1, 1], code=1))
    (line,) = warnings_of(tmp_path, "orientations")
    assert "mixed orientations, 2 ways: 2 with rows towards" in line
