"""How the models came about: tables of training, plan with reasons, settings, provenance, and the commands that do it again.

Only what was recorded is shown; nothing is measured here.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utseg.evaluate.tables import NOTHING, Table, duration_text, number
from utseg.report.entries import Entry, Run, Scores

USER_SET = "set by the user"
RESULTS_DEPTH = 4
"""DATASET/PLAN_2d/MODEL/FOLD."""


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
    validated = [epoch for epoch in epochs if epoch.get("mean_dice") is not None]
    best = max(validated, key=_dice_of, default=None)
    done = f"{epochs[-1]['epoch']}/{epochs[-1].get('epochs', record.epochs)}" if epochs else NOTHING
    return [
        entry.name,
        record.selection,
        str(len(record.training_cases)),
        str(len(record.validation_cases)),
        done,
        f"{epochs[-1]['iteration']:,}" if epochs and "iteration" in epochs[-1] else NOTHING,
        str(record.plan.batch_size),
        duration_text(seconds if epochs else None),
        number(seconds / len(epochs), 1) if epochs else NOTHING,
        f"{100 * waited / seconds:.1f} %" if seconds else NOTHING,
        number(validated[-1]["mean_dice"], 3) if validated else NOTHING,
        number(best["mean_dice"], 3) if best else NOTHING,
        str(best["epoch"]) if best else NOTHING,
        f"{record.plan.estimated_memory_gb:g} GB",
        record.device,
    ]


def _dice_of(epoch: dict[str, Any]) -> float:
    return float(epoch["mean_dice"])


def plan_tables(entries: Sequence[Entry]) -> list[Table]:
    """Each plan once: every value with its reason. Entries that share a plan are named in its title."""
    plans: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for entry in entries:
        for run in entry.runs:
            plan = run.record.plan.model_dump(mode="json")
            names = plans.setdefault(json.dumps(plan, sort_keys=True), (plan, []))[1]
            if entry.name not in names:
                names.append(entry.name)
    tables = []
    for plan, names in plans.values():
        reasons = plan.pop("reasons")
        rows = [[key, text(value), _reason(reasons.get(key, ""), text(value))] for key, value in leaves(plan)]
        title = f"Plan {plan['planner']}_{plan['configuration']} of {plan['dataset']}: {', '.join(names)}"
        tables.append(Table(title, ["key", "value", "reason"], rows))
    return tables


def _reason(reason: str, value: str) -> str:
    """Without the value that a reason often begins with; it stands beside."""
    return reason.removeprefix(f"{value}: ")


def settings_table(entries: Sequence[Entry]) -> Table | None:
    """Network and recipe of each training whose settings differ. None without any."""
    rows: list[list[str]] = []
    for entry in entries:
        for run in entry.runs:
            record = run.record
            whole = {"network": record.network, **record.network_settings, "recipe": record.recipe}
            for key, value in leaves(whole):
                if (row := [entry.name, key, text(value)]) not in rows:
                    rows.append(row)
    return Table("Network and recipe", ["model", "setting", "value"], rows) if rows else None


def provenance_table(entries: Sequence[Entry], made: Mapping[str, str]) -> Table:
    """Versions, checksums, revisions of everything that went in; `made` says how this report was made."""
    rows = [["this report", what, value] for what, value in made.items()]
    for entry in entries:
        rows += [[entry.name, what, value] for what, value in _of_entry(entry)]
    return Table("Provenance", ["of", "what", "value"], rows)


def _of_entry(entry: Entry) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for run in entry.runs:
        record = run.record
        own = f"training on {record.selection}"
        found += [
            (own, f"{run.folder}, started {record.started}"),
            (f"{own}: git revision", record.git_revision or NOTHING),
            (f"{own}: seed", str(record.seed)),
            (f"{own}: data (SHA-256)", record.data_sha256),
            (f"{own}: versions", _versions(record.versions)),
        ]
        if record.initial_weights:
            weights = record.initial_weights
            found.append(
                (f"{own}: began from", f"{weights.file} ({weights.tensors} tensors) {weights.sha256}")
            )
    for scores in entry.scores:
        found.append(("scores", f"{scores.folder}"))
        found.append(("metrics.csv (SHA-256)", scores.metrics_sha256))
        if definitions := scores.summary.get("definitions"):
            found.append(
                ("definitions", ", ".join(f"{key} {text(value)}" for key, value in leaves(definitions)))
            )
        if record_of := scores.prediction:
            augmented = record_of.test_time_augmentation.in_words()
            found.append(
                (
                    "prediction",
                    f"on {record_of.device}, test-time augmentation: {augmented}; {_versions(record_of.versions)}",
                )
            )
            for use in record_of.models:
                found.append((f"weights {use.name} (SHA-256)", use.weights_sha256))
                found.append((f"plan of {use.name} (SHA-256)", use.plan_sha256))
    return found


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def commands(entries: Sequence[Entry], this_command: str) -> list[str]:
    """Command lines that make the same again, as far as the records know. Values that the user set in the recipe are in the settings."""
    lines: list[str] = []
    for entry in entries:
        for run in entry.runs:
            record, plan = run.record, run.record.plan
            prepare = ["utseg_plan_and_preprocess", "-d", plan.dataset, "-pl", plan.planner]
            values = dict(leaves(plan.model_dump(mode="json", exclude={"reasons"})))
            for key, reason in plan.reasons.items():
                if reason.startswith(USER_SET):
                    prepare += ["--set", f"{key}={set_text(values.get(key))}"]
            train = [
                "utseg_train",
                plan.configuration,
                record.selection,
                "-d",
                plan.dataset,
                "-m",
                record.model,
            ]
            train += ["-pl", plan.planner, "--epochs", str(record.epochs), "--seed", str(record.seed)]
            lines += [shlex.join(prepare), shlex.join(train)]
        for scores in entry.scores:
            lines += _predict_line(scores)
            if scores.prediction_folder and scores.prediction_folder != scores.folder:
                words = ["utseg_evaluate", "-p", str(_relative(scores.prediction_folder))]
                lines.append(shlex.join([*words, "-g", "REFERENCES", "-o", str(scores.folder)]))
    return [*dict.fromkeys(lines), this_command]


def _predict_line(scores: Scores) -> list[str]:
    """How the masks were made; nothing for a run's own validation, or where the record's names are not those of a results folder."""
    record, folder = scores.prediction, scores.prediction_folder
    if record is None or folder is None or folder == scores.folder:
        return []
    parts = [use.name.split("/") for use in record.models]
    if any(len(own) != RESULTS_DEPTH for own in parts) or len({(own[0], own[1]) for own in parts}) > 1:
        return []
    dataset, plan = parts[0][:2]
    models, folds = (list(dict.fromkeys(own[place] for own in parts)) for place in (2, 3))
    words = ["utseg_predict", "-i", "IMAGES", "-o", str(_relative(folder)), "-d", dataset, "-m", *models]
    words += ["-pl", plan.rpartition("_")[0], "-f", *folds]
    words += [] if record.test_time_augmentation.mirror_axes else ["--no-tta"]
    return [shlex.join(words)]


def _relative(path: Path) -> Path:
    """Without the `..` that come from a record's relative paths."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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
        return ", ".join(f"{key} = {text(own)}" for key, own in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(text, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return NOTHING if value is None else str(value)


def set_text(value: Any) -> str:
    """A value as `--set` takes it."""
    return ",".join(map(text, value)) if isinstance(value, (list, tuple)) else text(value)
