"""What paths hold: scores, runs, folds that belong together, names, group columns."""

import hashlib
import json
import shlex
import shutil

import pytest
from made_scores import write_scores
from tiny_models import make_plan

from utseg.commands.predict import make_predict_parser
from utseg.errors import CaseErrors
from utseg.evaluate.sources import Sources
from utseg.files import sha256_json
from utseg.home import Home
from utseg.planning.plan import Plan
from utseg.planning.task import for_network
from utseg.predict.record import PredictionRecord
from utseg.report.entries import Entry, Scores, find_entries, group_columns, read_one_run
from utseg.report.scores.provenance import commands, plan_tables, training_table
from utseg.report.scores.write import write_report
from utseg.settings import parse_settings
from utseg.training.record import InitialWeights, RunRecord, read_run, write_run

EPOCH = {
    "epoch": 1,
    "epochs": 2,
    "iteration": 5,
    "loss": 1.5,
    "seconds": 2.0,
    "data_wait_seconds": 0.5,
    "mean_dice": 0.5,
}


def make_run(folder, selection, cases=(), **plan):
    """A run with one epoch so far; with cases also its validation's scores."""
    folder.mkdir(parents=True)
    record = RunRecord(
        model=folder.parent.name,
        plan=for_network(make_plan(**plan), folder.parent.name),
        recipe={"seed": 0},
        selection=selection,
        training_cases=("x",),
        validation_cases=tuple(cases),
        epochs=2,
        iterations_per_epoch=5,
        seed=3,
        device="cpu",
        data_sha256="0" * 64,
        versions={"torch": "2.13"},
        git_revision="abc",
        started="2026-01-01T00:00:00+00:00",
    )
    write_run(record, folder)
    (folder / "training.jsonl").write_text(json.dumps(EPOCH) + "\n")
    if cases:
        write_scores(folder / "validation", {case: {"LV": 0.9, "RV": 0.8} for case in cases})
        (folder / "validation" / "summary.json").write_text("{}")
    return folder


@pytest.fixture
def home(tmp_path):
    return Home.locate(tmp_path / "home")


def test_folds_on_different_cases_are_one_model_and_others_are_not(tmp_path, home):
    for model in ("UTNet", "UNet"):
        for fold in range(3):
            make_run(
                tmp_path / "results" / model / f"fold{fold}", f"fold{fold}", [f"s{fold}_ED", f"s{fold}_ES"]
            )
    make_run(tmp_path / "results" / "UTNet" / "vendor=A", "vendor=A", ["s9_ED"])
    entries = find_entries([tmp_path / "results"], home)
    found = {entry.name: (len(entry.runs), len(entry.rows)) for entry in entries}
    assert found == {"UNet": (3, 12), "UTNet": (3, 12), "UTNet/vendor=A": (1, 2)}


def test_folds_on_the_same_cases_stay_apart(tmp_path, home):
    for fold in range(2):
        make_run(tmp_path / "UTNet" / f"fold{fold}", f"fold{fold}", ["a_ED"])
    assert [entry.name for entry in find_entries([tmp_path], home)] == ["fold0", "fold1"]


def test_folds_that_were_trained_otherwise_are_named_though_they_count_as_one_model(tmp_path, home):
    runs = [make_run(tmp_path / "UTNet" / f"fold{n}", f"fold{n}", [f"s{n}_ED"]) for n in range(3)]
    assert not write_report(runs, tmp_path / "r.html", home=home, pictures=False).notices
    write_run(read_run(runs[1]).model_copy(update={"epochs": 200}), runs[1])
    (line,) = write_report(runs, tmp_path / "r.html", home=home, pictures=False).notices
    assert line == (
        "UTNet: fold1 was trained otherwise than fold0: iterations (10 there, 1000 here); both count as one model."
    )


def test_other_references_of_the_same_names_are_told_without_pictures_too(tmp_path, home):
    folders = [write_scores(tmp_path / model, {"a_ED": {"LV": 0.9}}) for model in ("A", "B")]
    case = {"images": (), "reference": "r", "frame": None, "prediction": "p", "prediction_sha256": "0"}
    numbering = {key: {"LV": 1} for key in ("labels", "reference_labels", "mask_labels")}
    for folder, checksum in zip(folders, "01", strict=True):
        sources = Sources(**numbering, cases={"a_ED": {**case, "reference_sha256": checksum}})
        (folder / "sources.json").write_text(sources.model_dump_json())
    for pictures in (False, True):
        notices = write_report(folders, tmp_path / "r.html", home=home, pictures=pictures).notices
        assert notices.count("1 case: the models were scored against different references.") == 1


def test_scores_of_a_run_that_is_not_validated_to_the_end_are_not_shown(tmp_path, home):
    run = make_run(tmp_path / "UTNet" / "fold0", "fold0", ["a_ED"])
    (run / "validation" / "summary.json").unlink()  # as `utseg_train` does before it predicts anew
    (entry,) = find_entries([run], home)
    assert not entry.rows


def test_a_folder_given_twice_or_as_its_validation_counts_once(tmp_path, home):
    run = make_run(tmp_path / "UTNet" / "fold0", "fold0", ["a_ED"])
    entries = find_entries([run, run / "validation", tmp_path], home)
    assert [(entry.name, len(entry.rows)) for entry in entries] == [("UTNet", 2)]


def test_names_are_what_tells_the_folders_apart(tmp_path, home):
    places = [tmp_path / "study" / name / "scores" for name in ("seen/UTNet", "unseen/UTNet")]
    for place in places:
        write_scores(place, {"a_ED": {"LV": 0.5}})
    assert [entry.name for entry in find_entries(places, home)] == ["seen", "unseen"]
    assert find_entries(places[:1], home)[0].name == "UTNet"


def test_a_run_that_is_not_validated_yet_has_its_training(tmp_path, home):
    (entry,) = find_entries([make_run(tmp_path / "UTNet" / "all", "all")], home)
    row = dict(zip(training_table([entry]).columns, training_table([entry]).rows[0], strict=True))
    assert (entry.rows, row["epochs"], row["time"], row["data wait"]) == ([], "1/2", "2 s", "25.0 %")


def test_a_validation_on_subjects_that_the_initial_weights_saw_is_marked(tmp_path, home):
    run = make_run(tmp_path / "UTNet" / "fold0", "fold0", ["a_ED", "b_ED"])
    write_report([run], tmp_path / "clean.html", home=home, pictures=False)
    initial = InitialWeights(file="model.safetensors", sha256="0" * 64, tensors=9, saw=2)
    write_run(read_run(run).model_copy(update={"initial_weights": initial}), run)
    write_report([run], tmp_path / "seen.html", home=home, pictures=False)
    said = "the run on fold0 began from weights that were trained on 2 of the subjects that it holds back"
    assert said in (tmp_path / "seen.html").read_text() and said not in (tmp_path / "clean.html").read_text()


def test_a_damaged_history_is_named(tmp_path, home):
    run = make_run(tmp_path / "UTNet" / "all", "all")
    (run / "training.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(CaseErrors, match=r"training.jsonl: not a training.jsonl: KeyError 'loss'"):
        find_entries([run], home)


def test_a_plan_shows_its_reasons_once_and_the_commands_what_the_user_set(tmp_path, home):
    reasons = {"batch_size": "set by the user; the planner had 8", "patch_size": "32, 32: small"}
    runs = [make_run(tmp_path / "UTNet" / f"fold{n}", f"fold{n}", reasons=reasons) for n in range(2)]
    entries = find_entries(runs, home)
    (table,) = plan_tables(entries)
    assert ["patch_size", "32, 32", "small"] in table.rows
    lines = commands(entries, "utseg_report x")
    assert lines[0] == "utseg_plan_and_preprocess -d Tiny -pl auto --set batch_size=4"
    assert "utseg_train 2d fold1 -d Tiny -m UTNet -pl auto --epochs 2 --seed 3" in lines
    assert lines[-1] == "utseg_report x" and len(lines) == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("preprocessing.spacing_yx_mm", [1.3671875, 1.3671875]),
        ("network.aux_loss", False),
        ("network.num_blocks", [2]),
        ("network.projection", "maxpool"),
    ],
)
def test_values_that_the_user_set_are_typed_so_that_they_are_read_as_they_were(tmp_path, home, key, value):
    run = make_run(tmp_path / "UTNet" / "all", "all")
    record = read_run(run)
    tree = record.plan.model_dump(mode="json")
    group, name = key.split(".")
    tree[group][name] = value
    tree["reasons"] = {key: "set by the user; the planner had another"}
    write_run(record.model_copy(update={"plan": Plan.model_validate(tree)}), run)
    line = shlex.split(commands(find_entries([run], home), "utseg_report x")[0])
    assert parse_settings([line[line.index("--set") + 1]]) == {key: value}


def test_the_command_that_trains_again_begins_from_the_same_weights(tmp_path, home):
    run = make_run(tmp_path / "UTNet" / "all", "all")
    initial = InitialWeights(file="model.safetensors", sha256="0" * 64, tensors=9)
    write_run(read_run(run).model_copy(update={"initial_weights": initial}), run)
    line = commands(find_entries([run], home), "utseg_report x")[1]
    assert line.endswith(" --seed 3 --weights model.safetensors")


def scoring_lines(tmp_path, names, summary=(), **use):
    """The commands for masks by these models, without their names."""
    models = [
        {"name": name, "network": "UTNet", "weights_sha256": "0", "plan_sha256": "0", **use} for name in names
    ]
    record = PredictionRecord.model_validate(
        {"models": models, "labels": {"LV": 1}, "channel_names": ("c",), "versions": {}, "device": "cpu"}
        | {"test_time_augmentation": {}, "cases": {}}
    )
    scores = Scores(tmp_path / "scores", [], dict(summary), None, record, tmp_path / "masks", "0")
    lines = commands([Entry("one", (scores,))], "utseg_report x")[:-1]
    return {words[0]: words[1:] for words in map(shlex.split, lines)}


def test_the_command_that_scores_again_has_the_definitions(tmp_path):
    summary = {"definitions": {"surface": "area", "percentile": "pooled", "tolerance_mm": 1.25}}
    line = scoring_lines(tmp_path, ["Tiny/auto_2d/UTNet/all"], summary)["utseg_evaluate"]
    assert line[-4:] == ["--surface", "area", "--tolerance-mm", "1.25"]
    assert "--surface" not in scoring_lines(tmp_path, ["Tiny/auto_2d/UTNet/all"])["utseg_evaluate"]


def test_masks_that_no_one_command_makes_are_only_scored_and_the_checkpoint_is_named(tmp_path):
    place = "Tiny/auto_2d"
    best = scoring_lines(tmp_path, [f"{place}/UTNet/fold0"], checkpoint="best")["utseg_predict"]
    assert best[best.index("--checkpoint") + 1] == "best"
    assert make_predict_parser().parse_args(best).checkpoint == "best"
    crossed = [f"{place}/UTNet/fold0", f"{place}/UNet/fold1"]  # -m UTNet UNet -f 0 1 would take four
    assert list(scoring_lines(tmp_path, crossed)) == ["utseg_evaluate"]
    assert list(scoring_lines(tmp_path, [f"{place}/UTNet/fold0"], share=1.0)) == ["utseg_evaluate"]


@pytest.mark.parametrize(
    ("uses", "expected"),
    [
        ([{"focus": True}, {"focus": True}], ["--precision", "float32"]),
        ([{}, {}], ["--precision", "float32"]),
        ([{"focus": True}, {}], ["--precision", "float32"]),
        ([{"step_size": 0.75}, {"step_size": 0.75}], ["--step-size", "0.75", "--precision", "float32"]),
        ([{"plan_sha256": "0"}, {"plan_sha256": "1"}], ["--step-size", "0.5", "--precision", "float32"]),
        ([{"precision": "bfloat16"}, {"precision": "bfloat16"}], ["--precision", "bfloat16"]),
        ([{"precision": "bfloat16"}, {}], []),
        ([{"precision": "float16"}, {"precision": "float16"}], []),
    ],
    ids=["focus", "planned", "unlike", "asked for", "plans unknown", "bfloat16", "of both kinds", "float16"],
)
def test_the_command_that_makes_the_masks_again_is_one_that_is_accepted(tmp_path, uses, expected):
    folders = [make_run(tmp_path / model / "fold0", "fold0") for model in ("UNet", "UTNet")]
    runs = tuple(read_one_run(folder) for folder in folders)
    models = [
        {"name": f"Tiny/auto_2d/{run.record.model}/fold0", "network": run.record.model, "weights_sha256": "0"}
        | {"plan_sha256": sha256_json(run.record.plan.model_dump(mode="json"))}
        | use
        for run, use in zip(runs, uses, strict=True)
    ]
    record = PredictionRecord.model_validate(
        {"models": models, "labels": {"LV": 1}, "channel_names": ("c",), "versions": {}, "device": "cpu"}
        | {"test_time_augmentation": {}, "cases": {}}
    )
    scores = Scores(tmp_path / "scores", [], {}, None, record, tmp_path / "masks", "0")
    (line,) = [
        shlex.split(each)[1:]
        for each in commands([Entry("both", (scores,), runs)], "utseg_report x")
        if each.startswith("utseg_predict")
    ]
    assert line[line.index("--no-tta") + 1 :] == expected
    assert make_predict_parser().parse_args(line).dataset == "Tiny"


def test_group_columns_are_those_that_tell_cases_apart_each_once(tmp_path, home):
    cases = {f"{s}_{p}": {"LV": 0.9} for s in "abcd" for p in ("ED", "ES")}
    vendor = dict(zip("abcd", "AABB", strict=True))
    names = {s: f"maker {v}" for s, v in vendor.items()}
    scores = write_scores(
        tmp_path / "s", cases, vendor_name=names, vendor=vendor, centre=dict.fromkeys("abcd", "1")
    )
    (entry,) = find_entries([scores], home)
    assert group_columns(entry.rows) == ("vendor", "phase")


def test_a_prediction_record_that_cannot_be_read_costs_its_provenance_only(tmp_path, home, caplog):
    scores = write_scores(tmp_path / "s", {"a_ED": {"LV": 0.9}})
    (scores / "prediction.json").write_text('{"format": "other"}')
    with caplog.at_level("WARNING", logger="utseg"):
        (entry,) = find_entries([scores], home)
    assert entry.scores[0].prediction is None and "prediction.json" in caplog.text


def test_the_model_that_made_the_masks_is_found_by_name_and_checksum(tmp_path, home):
    run = make_run(home.results / "Tiny" / "auto_2d" / "UTNet" / "fold0", "fold0")
    (run / "model.safetensors").write_bytes(b"weights")
    scores = write_scores(tmp_path / "s", {"a_ED": {"LV": 0.9}})

    def record(name, checksum):
        use = {"name": name, "network": "UTNet", "weights_sha256": checksum, "plan_sha256": "0"}
        same = {"labels": {"LV": 1}, "channel_names": ["c"], "versions": {}, "device": "cpu", "cases": {}}
        content = {"models": [use], "test_time_augmentation": {}, **same}
        (scores / "prediction.json").write_text(json.dumps(content))
        return find_entries([scores], home)[0].runs

    own = hashlib.sha256(b"weights").hexdigest()
    assert [found.folder for found in record("Tiny/auto_2d/UTNet/fold0", own)] == [run]
    assert record("Tiny/auto_2d/UTNet/fold0", "0" * 64) == ()
    outside = home.results / ".." / "elsewhere"
    shutil.copytree(run, outside)
    assert record("../elsewhere", own) == ()
