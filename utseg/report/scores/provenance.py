"""How the models came about: tables of training, plan with reasons, settings, provenance, and the commands that do it again.

Only what was recorded is shown; nothing is measured here.
"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utseg.device import TO_PREDICT_IN
from utseg.evaluate.metrics import Definition
from utseg.evaluate.tables import NOTHING, Table, duration_text, number
from utseg.files import sha256_json
from utseg.home import plan_folder_name, plan_name, planner_words
from utseg.planning.plan import Plan
from utseg.predict.record import PredictionRecord
from utseg.report.entries import Entry, Run, Scores

USER_SET = "set by the user"
RESULTS_DEPTH = 4  # DATASET/PLAN_2d/MODEL/FOLD


def training_table(entries: Sequence[Entry]) -> Table | None:
    """A row for each training: its size, time, validation. None without any."""
    columns = ["model", "trained on", "cases", "validated on", "epochs", "iterations", "batch", "time"]
    columns += ["s an epoch", "data wait", "last Dice", "best Dice", "at epoch", "memory planned", "device"]
    rows = [_training_row(entry, run) for entry in entries for run in entry.runs]
    note = (
        "Dice: mean over labels on the held-back cases at the plan's resolution. The model is that of the last epoch; the best is a little "
        "too good, as it was picked. Data wait: share of the training time spent waiting for the loader. Memory: counted for a training "
        "step when it was planned."
    )
    return Table("Training", columns, rows, note) if rows else None


def _training_row(entry: Entry, run: Run) -> list[str]:
    record, epochs = run.record, run.epochs
    seconds = sum(epoch["seconds"] for epoch in epochs)
    waited = sum(epoch.get("data_wait_seconds") or 0 for epoch in epochs)
    dice = {epoch["epoch"]: epoch["mean_dice"] for epoch in epochs if epoch.get("mean_dice") is not None}
    cases = [str(len(some)) for some in (record.training_cases, record.validation_cases)]
    done, times, scores = [NOTHING] * 2, [NOTHING] * 3, [NOTHING] * 3
    if epochs:
        last = epochs[-1]
        done[0] = f"{last['epoch']}/{last.get('epochs', record.epochs)}"
        done[1] = f"{last['iteration']:,}" if "iteration" in last else NOTHING
        times[:2] = duration_text(seconds), number(seconds / len(epochs), 1)
        times[2] = f"{100 * waited / seconds:.1f} %" if seconds else NOTHING
    if dice:
        best = max(dice, key=lambda epoch: dice[epoch])
        scores = [number([*dice.values()][-1], 3), number(dice[best], 3), str(best)]
    plan = record.plan
    step = [f"{plan.estimated_memory_gb:g} GB", record.device]
    return [entry.name, record.selection, *cases, *done, str(plan.batch_size), *times, *scores, *step]


def plan_tables(entries: Sequence[Entry]) -> list[Table]:
    """Each plan once: every value with its reason. Entries that share a plan are named in its title."""
    plans: dict[str, dict[str, None]] = {}
    for entry in entries:
        for run in entry.runs:
            plan = json.dumps(run.record.plan.model_dump(mode="json"))
            plans.setdefault(plan, {})[entry.name] = None
    tables = []
    for plan, names in plans.items():
        values = json.loads(plan)
        reasons = values.pop("reasons")
        rows = []
        for key, value in leaves(values):
            shown = text(value)  # with which a reason often begins
            rows.append([key, shown, reasons.get(key, "").removeprefix(f"{shown}: ")])
        folder_name = plan_folder_name(values["planner"], values["configuration"])
        title = f"Plan {folder_name} of {values['dataset']}: {', '.join(names)}"
        tables.append(Table(title, ["key", "value", "reason"], rows))
    return tables


def settings_table(entries: Sequence[Entry]) -> Table | None:
    """Network and recipe of each training whose settings differ. None without any."""
    rows: dict[tuple[str, str, str], None] = {}
    for entry in entries:
        for record in (run.record for run in entry.runs):
            plan = record.plan
            whole = {"network": plan.network_name, **plan.network, "recipe": record.recipe}
            rows |= dict.fromkeys((entry.name, key, text(value)) for key, value in leaves(whole))
    return Table("Network and recipe", ["model", "setting", "value"], list(rows)) if rows else None


def provenance_table(entries: Sequence[Entry], made: Mapping[str, str]) -> Table:
    """Versions, checksums, revisions of everything that went in; `made` says how this report was made."""
    rows = [["this report", what, value] for what, value in made.items()]
    for entry in entries:
        rows += [[entry.name, what, value] for what, value in _of_entry(entry)]
    return Table("Provenance", ["of", "what", "value"], rows)


def _of_entry(entry: Entry) -> Iterator[tuple[str, str]]:
    for run in entry.runs:
        record = run.record
        training = f"training on {record.selection}"
        yield training, f"{run.folder}, started {record.started}"
        yield f"{training}: git revision", record.git_revision or NOTHING
        yield f"{training}: seed", str(record.seed)
        yield f"{training}: data (SHA-256)", record.data_sha256
        yield f"{training}: versions", _versions(record.versions)
        if weights := record.initial_weights:
            yield f"{training}: began from", f"{weights.file} ({weights.tensors} tensors) {weights.sha256}"
    for scores in entry.scores:
        yield "scores", str(scores.folder)
        yield "metrics.csv (SHA-256)", scores.metrics_sha256
        if definitions := scores.summary.get("definitions"):
            yield "definitions", ", ".join(f"{key} {text(value)}" for key, value in leaves(definitions))
        if prediction := scores.prediction:
            augmented = prediction.test_time_augmentation.in_words()
            made_by = f"test-time augmentation: {augmented}; {_versions(prediction.versions)}"
            yield "prediction", f"on {prediction.device}, {made_by}"
            for use in prediction.models:
                yield f"weights {use.name} (SHA-256)", use.weights_sha256
                yield f"plan of {use.name} (SHA-256)", use.plan_sha256
                windows = (
                    "the one that shows all"
                    if use.focus
                    else f"{use.step_size:g} of one from each to the next"
                )
                yield f"windows of {use.name}", f"{windows}; {use.precision}"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def commands(entries: Sequence[Entry], this_command: str) -> list[str]:
    """Command lines that make the same again, as far as the records know. Values that the user set in the recipe are in the settings."""
    lines: list[list[str]] = []
    for entry in entries:
        for run in entry.runs:
            lines += _training_commands(run)
        for scores in entry.scores:
            lines += _scoring_commands(scores, [run.record.plan for run in entry.runs])
    return [*dict.fromkeys(map(shlex.join, lines)), this_command]


def _training_commands(run: Run) -> list[list[str]]:
    record, plan = run.record, run.record.plan
    prepare = ["utseg_plan_and_preprocess", "-d", plan.dataset, *planner_words(plan.folder_name)]
    prepare += ["--like", _model_path(run.folder, plan.like.name)] if plan.like else []
    values = dict(leaves(plan.model_dump(mode="json", exclude={"reasons"})))
    for key, reason in plan.reasons.items():
        if reason.startswith(USER_SET):
            prepare += ["--set", f"{key}={_as_typed(values.get(key))}"]
    train = ["utseg_train", plan.configuration, record.selection, "-d", plan.dataset, "-m", record.model]
    train += ["-pl", plan.planner, "--epochs", str(record.planned_epochs), "--seed", str(record.seed)]
    train += ["--patience", str(record.patience)] if record.patience else []
    train += ["--weights", weights.file] if (weights := record.initial_weights) else []
    return [prepare, train]


def _as_typed(value: Any) -> str:
    """A value as `--set` reads it: JSON, which keeps all digits and what is a list; text as it is."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _model_path(run: Path, name: str) -> str:
    """Where the model of that name is among the results that the run is of; RESULTS stands for another place, or an archive."""
    above = run.absolute().parents
    found = above[min(RESULTS_DEPTH, len(above)) - 1] / name
    return str(_from_here(found)) if found.is_dir() else f"RESULTS/{name}"


def _from_here(path: Path) -> Path:
    """The path as it is typed here."""
    whole = path.resolve()  # a record's paths are relative, with ".."
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


def _scoring_commands(scores: Scores, plans: Sequence[Plan]) -> list[list[str]]:
    """How the masks were made and scored; nothing for a run's own validation. `plans`: those that are known of the models.

    Masks whose record has names that are not those of a results folder, or of which no one command makes them, are only scored.
    """
    record, folder = scores.prediction, scores.prediction_folder
    if folder is None or folder == scores.folder:
        return []
    masks = _from_here(folder)
    evaluate = ["utseg_evaluate", "-p", str(masks), "-g", "REFERENCES", "-o", str(scores.folder)]
    evaluate += _definition_words(scores.summary)
    names = [use.name.split("/") for use in record.models] if record else []
    one_plan = len({tuple(name[:2]) for name in names}) == 1
    if not record or not one_plan or any(len(name) != RESULTS_DEPTH for name in names):
        return [evaluate]
    dataset, plan = names[0][:2]
    models, folds = (list(dict.fromkeys(name[index] for name in names)) for index in (2, 3))
    checkpoints = {use.checkpoint for use in record.models}
    joined = any(use.share is not None for use in record.models)
    if joined or len(checkpoints) > 1 or len(names) != len(models) * len(folds):
        return [evaluate]
    predict = ["utseg_predict", "-i", "IMAGES", "-o", str(masks), "-d", dataset, "-m", *models]
    predict += ["-pl", plan_name(plan), "-f", *folds]
    predict += [] if checkpoints == {"final"} else ["--checkpoint", *checkpoints]
    predict += [] if record.test_time_augmentation.mirror_axes else ["--no-tta"]
    return [[*predict, *_window_words(record, plans), *_precision_words(record)], evaluate]


def _definition_words(summary: Mapping[str, Any]) -> list[str]:
    """The options of the scores, where they are not those that `utseg_evaluate` takes by itself."""
    usual, found = asdict(Definition()), summary.get("definitions") or {}
    words = [
        word
        for key, value in usual.items()
        if found.get(key, value) != value
        for word in (f"--{key.replace('_', '-')}", str(found[key]))
    ]
    return [*words, *(["--as-official-utnet"] if summary.get("official_utnet") else [])]


def _window_words(record: PredictionRecord, plans: Sequence[Plan]) -> list[str]:
    """`--step-size` where all models had windows everywhere in the same steps, and not since their plans say so."""
    known = {sha256_json(plan.model_dump(mode="json")): (plan.focus, plan.step_size) for plan in plans}
    used = {(use.focus, use.step_size) for use in record.models}
    planned = {known.get(use.plan_sha256) for use in record.models}
    if len(used) > 1 or used == planned:
        return []
    ((focus, step_size),) = used
    return [] if focus else ["--step-size", str(step_size)]


def _precision_words(record: PredictionRecord) -> list[str]:
    used = {use.precision for use in record.models}
    return ["--precision", *used] if len(used) == 1 and used <= {*TO_PREDICT_IN} else []


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """All values of nested objects by dotted key; lists, and objects that are maps of names to numbers, are values."""
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict) and key != "labels":
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def text(value: Any) -> str:
    """A setting for people: lists with commas, labels as name = value."""
    if isinstance(value, dict):
        return ", ".join(f"{key} = {text(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return NOTHING if value is None else str(value)
