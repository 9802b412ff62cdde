"""Adds pictures to the cases of a page: figures of some cases of each group, and the stacks of the worst cases, drawn in parallel.

What cannot be drawn is left out with the reason. Nothing is scored here.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace

from utseg.case import Dataset
from utseg.compute.pool import process_pool, run_each
from utseg.home import Home
from utseg.progress import progress
from utseg.report.case_files import CaseFiles, find_case_files
from utseg.report.cases import FIGURES, ShownCases, choose_figures
from utseg.report.stacks import PIXELS_PER_CASE, Stack, StackRequest, make_stack

logger = logging.getLogger("utseg")
STACKS_SHOWN = 400
CASES_AT_FULL_SIZE = 500


def with_pictures(
    cases: ShownCases,
    column: str,
    *,
    home: Home,
    dataset: Dataset | None = None,
    which: Collection[str] = FIGURES,
    most: int = STACKS_SHOWN,
    executor: Executor | None = None,
    workers: int | None = None,
) -> ShownCases:
    """The cases with these figures of each value of the group column ("": of all), and stacks of at most so many cases."""
    files, notices = find_case_files(cases.entries, home, dataset)
    fullest = _fullest(cases, files, column)
    figures = choose_figures(cases.entries, column, cases.order, fullest, which)
    in_figures = dict.fromkeys(figure.case_id for figure in figures)
    wanted = [case for case in cases.order if case in files]
    shown = dict.fromkeys([*wanted[:most], *in_figures])
    if len(wanted) > len(shown):
        notices.append(
            f"Only the {len(shown)} worst cases and those of the figures have their stack of slices."
        )
    # fewer pixels each where there are very many cases
    pixels = min(PIXELS_PER_CASE, PIXELS_PER_CASE * CASES_AT_FULL_SIZE // max(len(shown), 1))
    requests = [StackRequest(files[case], cases.labels, case in in_figures, pixels) for case in shown]
    stacks, problems = _stacks(requests, executor, workers)
    drawn = [figure for figure in figures if figure.case_id in stacks]
    return replace(cases, stacks=stacks, figures=drawn, notices=[*notices, *problems])


def _fullest(cases: ShownCases, files: Mapping[str, CaseFiles], column: str) -> set[str]:
    """Of each group the cases that as many models have as any of its cases."""
    group = {str(row["case"]): str(row.get(column, "")) for entry in cases.entries for row in entry.rows}
    most: dict[str, int] = {}
    for case, found in files.items():
        most[group[case]] = max(most.get(group[case], 0), len(found.predictions))
    return {case for case, found in files.items() if len(found.predictions) == most[group[case]]}


def _stacks(
    requests: Sequence[StackRequest], executor: Executor | None, workers: int | None
) -> tuple[dict[str, Stack], list[str]]:
    """The stacks of all cases that can be read, by case, and a line for each that cannot."""
    if not requests:
        return {}, []
    started = time.monotonic()
    stacks: dict[str, Stack] = {}
    problems: list[str] = []

    def name(request: StackRequest) -> str:
        return request.files.case_id

    with (
        nullcontext(executor) if executor else process_pool(workers) as pool,
        progress("pictures", len(requests)) as advance,
    ):
        for outcome in run_each(make_stack, requests, pool, name=name, workers=workers):
            if outcome.result is not None:
                stacks[outcome.result.case_id] = outcome.result
            elif outcome.error is not None:
                problems += [f"No picture: {line}" for line in outcome.error.lines()]
            advance()
    logger.debug("%d stacks in %.1f s", len(stacks), time.monotonic() - started)
    return stacks, problems
