"""What an archive holds, what it leaves out, and that its bytes depend on nothing else."""

import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
from commandline import killed_at, temporary_files
from made_archives import RUN_JSON, WEIGHTS, made_rows, make_finished_run, tree, unpacked
from rawfiles import make_nnunet

from utseg.archive import Terms, export_model, import_model
from utseg.archive.subjects import count_cohort, known_cases, shareable_columns
from utseg.compute.pool import InlineExecutor
from utseg.errors import ArtefactError, InputError, UtsegError
from utseg.evaluate.summary import summarise
from utseg.files import read_json
from utseg.fingerprint import make_fingerprint
from utseg.fingerprint.model import write_fingerprint
from utseg.rawdata import open_dataset
from utseg.training.record import InitialWeights, read_run, write_run


def test_an_archive_has_these_files_and_no_others(exported, run_folder, members):
    assert list(members) == [
        "manifest.json",
        "MODEL_CARD.md",
        WEIGHTS,
        RUN_JSON,
        "auto_2d/UTNet/fold0/validation/summary.json",
    ]
    assert members[WEIGHTS] == (run_folder / "model.safetensors").read_bytes()
    ours, theirs = json.loads((run_folder / "run.json").read_text()), json.loads(members[RUN_JSON])
    assert (theirs.pop("training_cases"), theirs.pop("validation_cases")) == ([], [])
    assert {key: ours[key] for key in theirs} == theirs
    assert zipfile.ZipFile(exported).testzip() is None


def test_the_same_model_gives_the_same_bytes_wherever_and_whenever(exported, run_folder, tmp_path):
    elsewhere = tmp_path / "other" / "results" / "Tiny" / "auto_2d" / "UTNet" / "fold0"
    shutil.copytree(run_folder, elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (time.time() - 10_000_000,) * 2)
    export_model([elsewhere], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == exported.read_bytes()


def test_what_a_killed_export_left_goes_with_the_next(run_folder, exported, tmp_path):
    output = tmp_path / "out" / "m.zip"
    assert killed_at(1, "utseg_export_model", "-o", output, home=run_folder.parents[4])
    assert len([*output.parent.iterdir()]) == 2  # the archive, and what was unpacked to check it
    for path in temporary_files(output.parent):
        os.utime(path, (0, 0))
    export_model([run_folder], output)
    assert [*output.parent.iterdir()] == [output] and output.read_bytes() == exported.read_bytes()


def test_the_order_of_runs_does_not_matter(tmp_path):
    runs = [make_finished_run(tmp_path / "Tiny", f"fold{k}", seed=k, first=4 * k) for k in range(2)]
    export_model(runs, tmp_path / "a.zip")
    export_model(runs[::-1], tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_no_case_and_no_subject_is_named_unless_asked_for(exported, run_folder, tmp_path):
    for data in unpacked(exported).values():
        for name in (b"miller", b"smith", b"4711", b"hospital_number"):
            assert name not in data
    manifest = export_model([run_folder], tmp_path / "named.zip", with_case_ids=True)
    assert manifest.with_case_ids
    record = json.loads(unpacked(tmp_path / "named.zip")[RUN_JSON])
    assert record == json.loads((run_folder / "run.json").read_text())
    assert "names of the cases are in" in unpacked(tmp_path / "named.zip")["MODEL_CARD.md"].decode()


def test_scores_of_folds_are_those_over_all_their_subjects(tmp_path):
    runs = [make_finished_run(tmp_path / "Tiny", f"fold{k}", seed=k, first=4 * k) for k in range(2)]
    manifest = export_model(runs, tmp_path / "a.zip")
    (table,) = manifest.scores
    assert table.runs == ("auto_2d/UTNet/fold0", "auto_2d/UTNet/fold1")
    rows = [{**row, "dice": float(f"{row['dice']:.6g}")} for k in range(2) for row in made_rows(4 * k)]
    expected = summarise(rows, ("vendor",))
    assert table.scores.all.subjects == 8
    for name in ("LV", "MYO"):
        found = table.scores.all.labels[name].dice
        assert found.model_dump(mode="json") == expected["all"]["labels"][name]["dice"]
        by_vendor = table.scores.groups["vendor"]["A"].labels[name].dice
        assert by_vendor.mean == expected["groups"]["vendor"]["A"]["labels"][name]["dice"]["mean"]
    card = unpacked(tmp_path / "a.zip")["MODEL_CARD.md"].decode()
    assert f"{expected['all']['labels']['MYO']['dice']['mean']:.3f}" in card
    assert "8 held-back cases, 8 subjects" in card
    assert "| vendor A | LV | 4 |" in card


def test_runs_that_scored_the_same_subjects_are_not_mixed(tmp_path):
    runs = [make_finished_run(tmp_path / "Tiny", fold) for fold in ("fold0", "vendor=A")]
    manifest = export_model(runs, tmp_path / "a.zip")
    assert [table.runs for table in manifest.scores] == [
        ("auto_2d/UTNet/fold0",),
        ("auto_2d/UTNet/vendor=A",),
    ]


def test_scores_of_subjects_that_the_initial_weights_saw_are_marked(tmp_path):
    run = make_finished_run(tmp_path / "Tiny")
    export_model([run], tmp_path / "a.zip")
    assert "too good" not in unpacked(tmp_path / "a.zip")["MODEL_CARD.md"].decode()
    initial = InitialWeights(file="model.safetensors", sha256="0" * 64, tensors=9, saw=2)
    write_run(read_run(run).model_copy(update={"initial_weights": initial}), run)
    export_model([run], tmp_path / "a.zip")
    card = unpacked(tmp_path / "a.zip")["MODEL_CARD.md"].decode()
    assert "auto_2d/UTNet/fold0 began from weights that were trained on 2 of its held-back subjects" in card


def test_a_run_without_readable_scores_goes_without(tmp_path):
    run = make_finished_run(tmp_path / "Tiny")
    (run / "validation" / "metrics.csv").unlink()
    (run / "validation" / "summary.json").write_text("{}")
    assert export_model([run], tmp_path / "a.zip").scores == ()
    assert "None are known" in unpacked(tmp_path / "a.zip")["MODEL_CARD.md"].decode()


@pytest.mark.parametrize(
    ("subjects", "kept"),
    [
        ({"Vendor": {"A": 1, "B": 5}}, ["Vendor"]),
        ({"age": {"51": 2, "52": 1}}, []),
        ({"age": {"51": 2, "52": 3}}, ["age"]),
        ({"empty": {}}, []),
    ],
)
def test_columns_that_may_point_at_a_person(subjects, kept):
    assert shareable_columns(subjects) == kept


def test_subjects_and_groups_are_counted_from_the_fingerprint(tmp_path):
    dataset = open_dataset(make_nnunet(tmp_path / "raw" / "Tiny", subjects=3, size_zyx=(3, 24, 20)))
    with InlineExecutor() as executor:
        write_fingerprint(make_fingerprint(dataset, executor), tmp_path / "fingerprint.json")
    known = known_cases(tmp_path)
    cohort = count_cohort(["s00_ED", "s00_ES", "s01_ED", "s02_ED"], known)
    assert (cohort.cases, cohort.subjects) == (4, 3)
    assert cohort.groups["vendor"] == {"A": 2, "B": 1}
    assert cohort.groups["phase"] == {"ED": 3, "ES": 1}
    assert count_cohort(["s00_ED", "stranger"], known).model_dump() == {
        "cases": 2,
        "subjects": None,
        "groups": {},
    }
    assert known_cases(tmp_path / "nowhere") == {}


def test_terms_are_on_the_card_and_harmless_there(run_folder, tmp_path):
    terms = Terms(
        licence="CC BY 4.0", citation="Doe 2026", contact="doe@example.org", description="<script>x"
    )
    export_model([run_folder], tmp_path / "a.zip", terms=terms)
    card = unpacked(tmp_path / "a.zip")["MODEL_CARD.md"].decode()
    for text in ("CC BY 4.0", "Doe 2026", "doe@example.org", "Research only", "not for diagnosis"):
        assert text in card
    assert "<script" not in card


def test_an_imported_model_keeps_what_it_came_with(run_folder, tmp_path):
    terms = Terms(licence="CC BY 4.0", citation="Doe 2026")
    export_model([run_folder], tmp_path / "a.zip", terms=terms)
    imported = import_model(tmp_path / "a.zip", tmp_path / "results")
    export_model(imported.runs, tmp_path / "b.zip")
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "a.zip").read_bytes()
    manifest = export_model(imported.runs, tmp_path / "c.zip", terms=Terms(licence="MIT"))
    assert (manifest.terms.licence, manifest.terms.citation) == ("MIT", "Doe 2026")


def test_a_run_trained_anew_in_the_place_of_an_imported_one_is_a_new_one(run_folder, tmp_path):
    export_model([run_folder], tmp_path / "a.zip", terms=Terms(licence="CC BY 4.0"))
    imported = import_model(tmp_path / "a.zip", tmp_path / "results")
    shutil.rmtree(imported.runs[0])
    make_finished_run(tmp_path / "results" / "Tiny", seed=7)
    manifest = export_model(imported.runs, tmp_path / "b.zip")
    assert manifest.terms == Terms()
    assert manifest.members[0].training.cases == 6


def test_a_damaged_run_is_not_exported(tmp_path):
    run = make_finished_run(tmp_path / "Tiny")
    data = bytearray((run / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (run / "model.safetensors").write_bytes(data)
    with pytest.raises(ArtefactError, match=r"model\.safetensors: damaged"):
        export_model([run], tmp_path / "a.zip")
    assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".tmp-*"))


def test_runs_with_other_labels_do_not_go_together(tmp_path):
    runs = [
        make_finished_run(tmp_path / "Tiny"),
        make_finished_run(tmp_path / "Tiny", "fold1", labels={"background": 0, "RV": 1, "MYO": 2, "LV": 3}),
    ]
    with pytest.raises(InputError, match="labels"):
        export_model(runs, tmp_path / "a.zip")


def test_only_an_archive_is_written_over(run_folder, exported, tmp_path):
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    with pytest.raises(InputError, match="is no archive; choose another file with -o"):
        export_model([run_folder], precious)
    with pytest.raises(InputError, match="is no archive"):
        export_model([run_folder], tmp_path)
    assert precious.read_text() == "years of work"
    shutil.copy(exported, tmp_path / "old.zip")
    export_model([run_folder], tmp_path / "old.zip", terms=Terms(licence="MIT"))
    assert b"MIT" in unpacked(tmp_path / "old.zip")["MODEL_CARD.md"]


def test_a_disk_that_fails_leaves_the_old_archive(run_folder, exported, tmp_path, monkeypatch):
    target = tmp_path / "model.zip"
    shutil.copy(exported, target)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UtsegError, match="No space left"):
        export_model([run_folder], target, terms=Terms(licence="MIT"))
    assert tree(tmp_path) == {"model.zip": exported.read_bytes()}


def test_archives_of_more_than_four_gigabytes(run_folder, exported, tmp_path, monkeypatch):
    """They need the wide fields of zip, which are made here with a limit of a kilobyte."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    export_model([run_folder], tmp_path / "wide.zip")
    assert b"PK\x06\x06" in (tmp_path / "wide.zip").read_bytes()[-98:]
    assert unpacked(tmp_path / "wide.zip") == unpacked(exported)
    import_model(tmp_path / "wide.zip", tmp_path / "results")


def test_the_manifest_names_size_and_checksum_of_every_file(exported, members):
    import hashlib

    files = json.loads(members.pop("manifest.json"))["files"]
    assert files == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    }


def test_the_scores_of_an_imported_run_are_a_summary(exported, tmp_path):
    imported = import_model(exported, tmp_path / "results")
    summary = read_json(imported.runs[0] / "validation" / "summary.json")
    assert summary["format"] == "utseg-summary-1"
    assert 0 < summary["all"]["labels"]["LV"]["dice"]["mean"] < 1
    assert list(summary["groups"]) == ["vendor"]


def test_paths_of_this_machine_are_not_in_an_archive(exported, run_folder):
    for data in unpacked(exported).values():
        assert str(Path(run_folder).parents[4]).encode() not in data
