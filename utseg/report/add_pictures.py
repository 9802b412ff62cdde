"""Puts pictures into a page: a figure of some cases of each group, and the stacks of the worst cases, drawn in parallel.

Which models and cases a page is about is its own; what cannot be drawn is left out with the reason. Nothing is scored here.
"""

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import replace
from typing import TypeVar

from utseg.case import Dataset
from utseg.compute.pool import process_pool, run_each
from utseg.home import Home
from utseg.progress import progress
from utseg.report.case_files import CaseFiles, find_case_files
from utseg.report.cases import FIGURES, Chosen, choose_figures
from utseg.report.page import Shown
from utseg.report.stacks import PIXELS_PER_CASE, Stack, StackRequest, make_stack

logger = logging.getLogger("utseg")
STACKS_SHOWN = 400
CASES_AT_FULL_SIZE = 500
AnyPage = TypeVar("AnyPage", bound=Shown)


def with_pictures(
    page: AnyPage,
    column: str,
    *,
    home: Home,
    dataset: Dataset | None = None,
    which: Collection[str] = FIGURES,
    most: int = STACKS_SHOWN,
    executor: Executor | None = None,
    workers: int | None = None,
) -> AnyPage:
    """The page with figures of these cases of each value of the group column ("": of all), and stacks of at most so many cases."""
    entries = page.scored
    places, notices = find_case_files(entries, home, dataset)
    chosen = choose_figures(entries, column, page.order, _fullest(page, places, column), which)
    wanted = [case for case in page.order if case in places]
    kept = dict.fromkeys([*wanted[:most], *(figure.case_id for figure in chosen)])
    if len(wanted) > len(kept):
        notices.append(
            f"Only the {len(kept)} worst cases and those of the figures have their stack of slices."
        )
    requests = [
        StackRequest(
            places[case], page.labels, case in {figure.case_id for figure in chosen}, _pixels(len(kept))
        )
        for case in kept
    ]
    stacks, problems = _stacks(requests, executor, workers)
    return replace(
        page,
        notices=[*page.notices, *notices, *problems],
        stacks=stacks,
        figures=_there(chosen, stacks),
    )


def _fullest(page: Shown, places: Mapping[str, CaseFiles], column: str) -> set[str]:
    """Of each group the cases that as many models have as any of its cases."""
    group = {str(row["case"]): str(row.get(column, "")) for entry in page.scored for row in entry.rows}
    most: dict[str, int] = {}
    for case, own in places.items():
        most[group[case]] = max(most.get(group[case], 0), len(own.predictions))
    return {case for case, own in places.items() if len(own.predictions) == most[group[case]]}


def _pixels(count: int) -> int:
    """Of each case's stack: fewer where there are very many cases."""
    return min(PIXELS_PER_CASE, PIXELS_PER_CASE * CASES_AT_FULL_SIZE // max(count, 1))


def _there(chosen: Sequence[Chosen], stacks: Mapping[str, Stack]) -> list[Chosen]:
    return [figure for figure in chosen if figure.case_id in stacks]


def _stacks(
    requests: Sequence[StackRequest], executor: Executor | None, workers: int | None
) -> tuple[dict[str, Stack], list[str]]:
    """The stacks of all cases that can be read, by case, and a line for each that cannot."""
    started = time.monotonic()
    stacks: dict[str, Stack] = {}
    problems: list[str] = []
    if not requests:
        return stacks, problems

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
