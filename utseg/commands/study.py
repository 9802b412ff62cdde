"""`utseg_study`: trains on some, tests on others, many times, and says what is lost and which network loses least."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utseg.commands.cli import cluster_of, home_of, run, show_table
from utseg.commands.options import Parser
from utseg.errors import UsageError

if TYPE_CHECKING:
    from utseg.study.definition import Definition
    from utseg.study.record import StudyRecord
    from utseg.study.resolve import ResolvedStudy, StudyRequest

logger = logging.getLogger("utseg")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run(make_study_parser(), _study, argv)


def make_study_parser() -> Parser:
    """The command's options."""
    parser = Parser(
        "utseg_study",
        "Train on some subjects, test on others, with several networks: what is lost on unseen vendors, and what makes the difference. "
        "Each run is planned and trained from its own subjects alone. The same command goes on where it stopped; runs that have finished, "
        "in any study, are not run again.",
        "utseg_study vendors -d MnM -o studies/vendors --max-time 6h",
    )
    study = "vendors, leave-one-out, ablation, networks, data-size, seeds, generalization, or a file like those (--print shows one)"
    tested = "raw datasets to test on, with the same label names; default: the one that is trained on"
    by = "the column that tells seen from unseen, and by which sets are made, as centre"
    output = "folder for study.json, cases.csv, results.csv and the report"
    instead = "instead of the study's"
    parser.add_argument("study", help=study)
    parser.dataset("raw dataset to train on, where the file names none")
    parser.path("-o", "output", output, required=False)
    parser.value("-m", "networks", "NETWORK", instead, nargs="+")
    parser.value("-pl", "plans", "PLAN", instead, nargs="+")
    parser.value("--seeds", "seeds", "S", instead, nargs="+", type=int)
    parser.value("--test", "tested", "NAME", tested, nargs="+")
    parser.value("--by", "by", "COLUMN", by)
    part = "only the variants of this part; may be given again"
    parser.value("--part", "parts", "NAME", part, action="append")
    parser.settings("the plan or recipe in all runs", "network.base_channels=16")
    parser.length(
        epochs="length of each training; default: the study's, else the plan's",
        max_time="of the whole study, as 90m or 6h: shared out equally, tests included",
    )
    parser.workers("runs at once, which share the cores; default: 1", least=1)
    parser.dask()
    parser.device()
    what = parser.add_mutually_exclusive_group()
    parser.flag("--dry-run", "list the runs with estimated time and memory, and write nothing", what)
    parser.flag("--print", "write the study file to the terminal, to copy", what)
    return parser


def _study(arguments: argparse.Namespace) -> None:
    from utseg.study.definition import definition_text, read_definition

    if arguments.print:
        sys.stdout.write(definition_text(arguments.study)[1])
        return
    if not arguments.dry_run and arguments.output is None:
        raise UsageError("-o DIR is missing: the folder for what comes out of the study (or --dry-run)")
    from utseg.compute.children import stop_children
    from utseg.steps.studies import open_study, report_study, require_finished, wrong_study
    from utseg.study.resolve import StudyRequest, resolve
    from utseg.study.run import run_study

    where = definition_text(arguments.study)[0]
    with wrong_study():
        definition = with_arguments(read_definition(arguments.study), arguments, where)
    home, keep = home_of(arguments), not arguments.dry_run
    plan, checksums = open_study(definition, where, home, arguments.dataset, keep=keep)
    writes, reads = home.results if keep else None, [home.raw, home.preprocessed]
    gpu = arguments.device != "cpu"
    # runs on a cluster save and end when this command is interrupted
    with cluster_of(arguments, writes=writes, reads=reads, gpu=gpu, stop_work=stop_children) as executor:
        request = StudyRequest(
            output=(arguments.output or Path()).absolute(),
            home=home,
            max_time_s=arguments.max_time_s,
            parallel=executor.tasks_at_once if executor else arguments.workers or 1,
            device=arguments.device,
            threads=executor.cores_each if executor else None,
        )
        resolved = resolve(plan, request, checksums, executor, keep=keep)
        if arguments.dry_run:
            _dry_run(resolved, request)
            return
        record = run_study(resolved, request, executor)
    _show_means(record, request.output)
    if written := report_study(record, request.output):
        sys.stdout.write(f"report: {written}\ntables: {request.output}\n")
    require_finished(record)


def with_arguments(definition: "Definition", arguments: argparse.Namespace, where: str) -> "Definition":
    """The study with what the command line says instead."""
    from utseg.settings import parse_settings
    from utseg.study.definition import with_values

    values: dict[str, Any] = {
        "networks": arguments.networks,
        "plans": arguments.plans,
        "seeds": arguments.seeds,
        "epochs": arguments.epochs,
        "test.datasets": arguments.tested,
        "test.by": arguments.by,
        "train.each": arguments.by if definition.train.each else None,
        "train.leave_out": arguments.by if definition.train.leave_out else None,
    }
    values = {key: value for key, value in values.items() if value is not None}
    if arguments.max_time_s is not None:
        values["epochs"] = None
    if arguments.parts is not None:
        for part in arguments.parts:
            if part not in definition.parts():
                there = ", ".join(definition.parts()) or "none"
                raise UsageError(f"--part {part}: {where} has no such part; there are: {there}")
        kept = [variant for variant in definition.variants if variant.part in arguments.parts]
        values["variants"] = [variant.model_dump(mode="json") for variant in kept]
    if arguments.settings:
        values["settings"] = {**definition.settings, **parse_settings(arguments.settings)}
    return with_values(definition, values, where) if values else definition


def _dry_run(study: "ResolvedStudy", request: "StudyRequest") -> None:
    from utseg.evaluate.tables import duration_text
    from utseg.study.estimate import estimate, total_seconds

    estimates = estimate(study, request)
    heads = ["run", "train + validate", "test", "state", "train", "test", "memory GB", "parameters", "GMAC"]
    rows = []
    for one in estimates:
        planned, cost = one.run.planned, one.cost
        subjects = planned.subjects
        name = planned.name + (f" (and {one.same - 1} equal)" if one.same > 1 else "")
        trained = f"{len(subjects.training)} + {len(subjects.validation)}"
        tested = ", ".join(f"{dataset} {len(names)}" for dataset, names in subjects.testing.items())
        state = "finished" if one.finished else "to do" if cost else "wrong"
        figures = ["–"] * 5
        if cost:
            figures = [duration_text(cost.training_s), duration_text(cost.testing_s), f"{cost.memory_gb:.1f}"]
            figures += [f"{cost.parameters:,}", f"{cost.gmac:.2f}"]
        rows.append([name, trained, tested, state, *figures])
    show_table(f"{len(rows)} runs", heads, rows, range(4, len(heads)))
    for one in estimates:
        if one.problem:
            logger.warning("%s: %s", one.run.planned.name, one.problem)
    slot = f"{study.slot_s:.0f} s for each run; " if study.slot_s is not None else ""
    sys.stdout.write(
        f"{slot}about {duration_text(total_seconds(estimates, request.parallel))} in all, {request.parallel} at a time; "
        "train + validate: subjects; memory: a training step in float32\ndry run: nothing was written\n"
    )


def _show_means(record: "StudyRecord", output: Path) -> None:
    """Mean Dice of what was trained on × tested on, where a run has finished."""
    from utseg.report.study.matrix import means_table
    from utseg.study.findings.data import read_study_data
    from utseg.study.findings.matrix import mean_dice_matrix

    if logger.isEnabledFor(logging.INFO) and any(run.state == "finished" for run in record.runs):
        table = means_table(mean_dice_matrix(read_study_data(output)))
        show_table(table.title, table.columns, table.rows, range(2, len(table.columns)))
