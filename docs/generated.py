"""What pages take from the code while the site is built, in the place of marks like `{{ auto }}`: plans with their reasons, and studies.

A hook of MkDocs. The plans are for a small synthetic cohort, which is made, looked at and planned for here.
"""

import re
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from utseg.compute.pool import InlineExecutor
from utseg.fingerprint import Fingerprint
from utseg.phantom.cohort import make_phantom
from utseg.phantom.examination import PhantomSettings
from utseg.planning.plan import Plan
from utseg.preprocess.dataset import PlanRequest, look_at
from utseg.rawdata import open_dataset
from utseg.study.definition import builtin_names, read_definition

COHORT = PhantomSettings(subjects=10, frames=2, matrix=128)
MADE_BY = f"utseg_make_phantom utseg_data/raw/Phantom --subjects {COHORT.subjects} --frames {COHORT.frames} --matrix {COHORT.matrix}"
SHOWN = {
    "auto": PlanRequest("auto"),
    "auto_2.5d": PlanRequest("auto", "2.5d"),
    "cpu": PlanRequest("cpu"),
    "published": PlanRequest("published"),
}
MARK = re.compile(r"\{\{ (.+?) \}\}")
GROUPS = {
    "preprocessing": "Preprocessing",
    "": "Patch, batch, length of the training, prediction",
    "network": "Network",
    "augmentation": "Augmentation",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its marks replaced. An unknown mark raises KeyError."""
    return MARK.sub(lambda mark: generated(mark[1]), markdown)


def generated(mark: str) -> str:
    """The text for a mark: `cohort`, `studies`, or the name of a plan, of which those after the first show what differs from it."""
    if mark == "cohort":
        return MADE_BY
    if mark == "studies":
        return table({name: study_question(name) for name in builtin_names()}, "study", "question")
    first, *_ = SHOWN
    return (
        by_group(reasons()[first]) if mark == first else table(differences(reasons()[mark], reasons()[first]))
    )


def study_question(name: str) -> str:
    """The question that a built-in study asks."""
    return read_definition(name).question


@cache
def reasons() -> dict[str, dict[str, str]]:
    """For each plan shown its reasons by key, which begin with the value or hold it."""
    fingerprint = phantom_fingerprint()
    plans: dict[str, Plan] = {name: request.new_plan(fingerprint) for name, request in SHOWN.items()}
    return {name: plan.reasons for name, plan in plans.items()}


def phantom_fingerprint() -> Fingerprint:
    """The fingerprint of the cohort, which is made in a folder of its own and left nowhere."""
    with TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        make_phantom(raw, COHORT, workers=1)
        return look_at(open_dataset(raw, "Phantom"), Path(folder) / "made", executor=InlineExecutor())


def by_group(planned: dict[str, str]) -> str:
    """A heading and a table for each group of keys. All groups have keys."""
    groups = {
        group: {key: reason for key, reason in planned.items() if key.rpartition(".")[0] == group}
        for group in GROUPS
    }
    assert sum(map(len, groups.values())) == len(planned), "a key of the plan is in no group"
    return "\n\n".join(f"### {GROUPS[group]}\n\n{table(rows)}" for group, rows in groups.items())


def differences(planned: dict[str, str], base: dict[str, str]) -> dict[str, str]:
    """The reasons that differ from those of another plan, in its order; keys that it lacks come last."""
    order = [*base, *(planned.keys() - base.keys())]
    return {key: planned[key] for key in order if key in planned and planned[key] != base.get(key)}


def table(rows: dict[str, str], key: str = "value", text: str = "reason") -> str:
    """A Markdown table of keys and texts."""
    lines = [
        f"| `{name}` | {said.replace('|', '&#124;').replace('*', '&#42;')} |" for name, said in rows.items()
    ]
    return "\n".join([f"| {key} | {text} |", "|---|---|", *lines])
