"""The model card, `MODEL_CARD.md`: what a model is, what it was trained on, how well it did on held-back subjects, and what it is not for.

The text is `card.md`, filled from the manifest and the runs' records. Headings follow Mitchell et al., *Model Cards for Model Reporting*,
FAT* 2019.
"""

from collections.abc import Mapping

from utseg.archive.manifest import GroupScores, Manifest, Scores
from utseg.evaluate.tables import EMPTY_NOTE, NOTHING, interval, number
from utseg.selection.record import Best, treatment_in_words
from utseg.training.record import WEIGHTS_FILE, RunRecord


def model_card(manifest: Manifest, records: Mapping[str, RunRecord], best: Best | None) -> str:
    """The text of `MODEL_CARD.md`. `records` are the runs' by PLAN_2d/MODEL/FOLD, `best` is what chose them, if anything did."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("utseg.archive", ".")
    environment = Environment(
        loader=loader, finalize=_plain, undefined=StrictUndefined, keep_trailing_newline=True
    )
    shown = {"number": number, "interval": interval, "empty_note": EMPTY_NOTE, "weights": f"/{WEIGHTS_FILE}"}
    card = environment.get_template("card.md")
    return card.render(
        manifest=manifest,
        records=records,
        best=best,
        treatment=best and treatment_in_words(best),
        groups=_groups,
        **shown,
    )


def _groups(scores: Scores) -> list[tuple[str, GroupScores]]:
    of_columns = sorted(scores.groups.items())
    return [("all", scores.all)] + [
        (f"{column} {value}", group) for column, values in of_columns for value, group in values.items()
    ]


def _plain(value: object) -> str:
    """Names come from data: none of them is HTML, or ends a cell or row of a table."""
    text = NOTHING if value is None else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
