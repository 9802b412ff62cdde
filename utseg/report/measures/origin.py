"""Where the figures of a page come from: the rules, the masks, the models."""

from datetime import datetime
from pathlib import Path

from utseg.evaluate.tables import Table
from utseg.measure.record import CineMeasures, MeasuresRecord
from utseg.report.page import AnyBlock, Section, TableBlock, made_now

NO_MODELS = "not on record: no prediction.json lies beside the masks"


def when_measured(record: MeasuresRecord) -> str:
    """The day and the minute."""
    return datetime.fromisoformat(record.made.when).strftime("measured %Y-%m-%d %H:%M UTC")


def origin_section(record: MeasuresRecord, measures: CineMeasures | None = None) -> Section:
    """The rules in words, of one cine its own basal rule first, and the provenance: names only, as paths may tell of people."""
    rules = dict(record.rules)
    if measures is not None and measures.basal_rule in rules:
        rules = {f"basal slices, {measures.basal_rule}": rules.pop(measures.basal_rule)} | rules
    made = record.made
    rows = [["masks", Path(made.masks).name]]
    if measures:
        rows += [["mask", measures.mask]]
        rows += [["image", Path(measures.image).name if measures.image else "not known"]]
    rows += [["models", "; ".join(use.name for use in made.models) or NO_MODELS]]
    rows += [["measured", made.when], *([name, version] for name, version in made.versions.items())]
    rows += [["page", " by ".join(made_now().values())]]
    blocks: list[AnyBlock] = [
        TableBlock(
            Table(
                "How it was measured",
                ["rule", "in words"],
                [[name.replace("_", " "), words] for name, words in rules.items()],
            ),
            prose=True,
        ),
        TableBlock(Table("Where it comes from", ["what", "value"], rows), "closed", prose=True),
    ]
    return Section("origin", "Rules and origin", blocks)
