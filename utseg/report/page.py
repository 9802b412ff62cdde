"""The page: what it shows, and its HTML from template, style and script, all in one file that asks nothing of any network.

Everything is escaped by jinja2 or markupsafe; data for the script is JSON in which no tag can end. A Content-Security-Policy allows the
page's own script and style by their hash, pictures from the file itself, and nothing else. What is shown is for `scores` and `study`.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from utseg.evaluate.tables import Table
from utseg.figures.charts import COLOURS
from utseg.figures.colours import label_colour
from utseg.report.cases import Chosen, dice_by_label
from utseg.report.entries import Entry
from utseg.report.scores.comparison_tables import MARK
from utseg.report.scores.score_charts import Charts
from utseg.report.stacks import Stack

UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What every page has: a title, how it was made, and cases with their pictures. `order`: cases worst first, with their mean Dice.

    `lacking`: what stands where a model has no mask of a case.
    """

    title: str
    made: Sequence[tuple[str, str]]
    entries: Sequence[Entry]
    columns: Sequence[str]
    notices: Sequence[str]
    settings: Table | None
    provenance: Table
    commands: Sequence[str]
    order: Mapping[str, float] = field(default_factory=dict)
    cases: Table | None = None
    stacks: Mapping[str, Stack] = field(default_factory=dict)
    figures: Sequence[Chosen] = ()
    lacking: str = "not scored"

    @property
    def scored(self) -> list[Entry]:
        """The entries that have scores."""
        return [entry for entry in self.entries if entry.scores]

    @property
    def subjects(self) -> int:
        """How many subjects were scored, by any of the models."""
        return len({row["subject"] for entry in self.scored for row in entry.rows})

    @property
    def labels(self) -> dict[str, int]:
        """The labels that were scored, by name, with their values."""
        known: dict[str, int] = {}
        found: dict[str, int] = {}
        for entry in self.scored:
            for scores in entry.scores:
                known |= scores.sources.labels if scores.sources else {}
            for row in entry.rows:
                name = str(row["label_name"])
                found.setdefault(name, int(row.get("label") or known.get(name) or len(found) + 1))
        return found


@dataclass(frozen=True, kw_only=True)
class Page(Shown):
    """Everything that the report about scores and runs shows."""

    training: Table | None
    curves: Charts | None
    plans: Sequence[Table]
    glance: Sequence[Table] = ()
    pairs: Table | None = None
    details: Sequence[Table] = ()
    distributions: Sequence[Charts] = ()
    agreements: Sequence[Charts] = ()

    def tables(self) -> list[Table]:
        """Every table of the page, in its order."""
        some = [*self.glance, self.cases, *self.details, self.pairs, self.training]
        return [table for table in (*some, *self.plans, self.settings, self.provenance) if table is not None]


def render(page: Shown, template: str = "report.html") -> str:
    """The page as HTML, by a template that extends `layout.html`."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("utseg.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = json_in_html
    script, style = _own_file("report.js"), _own_file("report.css")
    numbers = {case: number for number, case in enumerate(page.order)}
    return environment.get_template(template).render(
        page=page,
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; img-src data:; script-src '{_hash(script)}'; style-src '{_hash(style)}'; "
        "base-uri 'none'; form-action 'none'",
        label_colours={name: label_colour(max(value, 1)) for name, value in page.labels.items()},
        colours=COLOURS,
        mark=MARK,
        numbers=numbers,
        filters=_filters(page),
        stacks={numbers[case]: _stack(page, stack) for case, stack in page.stacks.items()},
        figures=_figures(page),
        viewer={
            "labels": [
                {"name": name, "colour": label_colour(max(value, 1))} for name, value in page.labels.items()
            ],
            "models": [entry.name for entry in page.scored],
        },
    )


def json_in_html(value: Any) -> Markup:
    """JSON for a `<script type="application/json">`: no tag, comment or entity can begin or end in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in UNSAFE.items():
        text = text.replace(character, escape)
    return Markup(text)


def _own_file(name: str) -> str:
    return (files("utseg.report") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")


def _filters(page: Shown) -> list[dict[str, Any]]:
    """For each group column of the table of cases: its place and its values."""
    if page.cases is None:
        return []
    return [
        {"place": place, "column": column, "values": sorted({row[place] for row in page.cases.rows} - {""})}
        for place, column in enumerate(page.cases.columns)
        if column in page.columns
    ]


def _stack(page: Shown, stack: Stack) -> dict[str, Any]:
    """A stack for the viewer: models in the order of the entries, None where one has not got the case."""
    dice = dice_by_label(page.scored).get(stack.case_id, {})
    models = stack.page["models"]
    return {
        **stack.page,
        "case": stack.case_id,
        "models": [models.get(entry.name) for entry in page.scored],
        "dice": [[dice.get(entry.name, {}).get(label) for label in page.labels] for entry in page.scored],
    }


def _figures(page: Shown) -> list[dict[str, Any]]:
    """The figures' rows, by group: each case with its picture and the Dice of each model."""
    dice = dice_by_label(page.scored)
    groups: dict[str, list[dict[str, Any]]] = {}
    for chosen in page.figures:
        figure = page.stacks[chosen.case_id].figure or {}
        models = [
            {
                "name": entry.name,
                "paths": figure["models"].get(entry.name, {}).get("paths"),
                "dice": dice[chosen.case_id].get(entry.name, {}),
            }
            for entry in page.scored
        ]
        row = figure | {"case": chosen.case_id, "why": chosen.why, "models": models}
        groups.setdefault(chosen.group, []).append(row)
    return [{"group": group, "rows": rows} for group, rows in groups.items()]
