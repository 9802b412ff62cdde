"""The model card: what a model is, what it was trained on, how well it did on held-back subjects, and what it is not for. Markdown.

Says only what the manifest and the runs' records say. Headings follow Mitchell et al., *Model Cards for Model Reporting*, FAT* 2019.
"""

from collections.abc import Mapping, Sequence

from utseg.archive.manifest import Cohort, Manifest
from utseg.archive.scores import GroupScores, ScoreTable
from utseg.evaluate.tables import EMPTY_NOTE, NOTHING, Table, interval, number, to_markdown
from utseg.runs import WEIGHTS_FILE, RunRecord

NOT_STATED = "not stated"
NO_LICENCE = "not stated; ask those who gave you the model before you use it or pass it on"
LIMITS = """\
Research only. This is no medical device: it is not for diagnosis, nor for decisions about the care of a patient.

- Meant for images like those it was trained on: the same modality, view, channels and structures (see above).
- Scores of other scanners, centres, diseases and protocols than those below are not known; expect them to be lower. Look at masks before
  you use them.
- Masks of slices at the base and apex, and of rare anatomy, are where such networks fail most.
- Numbers below were measured on subjects that were held back from training but came from the same dataset. The weights are those of the
  end of training, which these subjects did not choose; if the model was chosen among several by them, the numbers are somewhat optimistic.
  They do not replace a test on your own data."""


def model_card(manifest: Manifest, records: Mapping[str, RunRecord]) -> str:
    """The text of `MODEL_CARD.md`. `records` are the runs' by PLAN_2d/MODEL/FOLD."""
    networks = ", ".join(dict.fromkeys(member.network for member in manifest.members))
    parts = [
        f"# {_plain(networks)} trained on {_plain(manifest.dataset)}",
        _plain(manifest.terms.description),
        _what_it_is(manifest, records),
        "## Use and limits",
        LIMITS,
        "## Trained on",
        _trained_on(manifest),
        _privacy(manifest),
        "## Scores",
        *(_scores(table) for table in manifest.scores),
        ""
        if manifest.scores
        else "None are known: no subject was held back, or the training did not come to its end.",
        "## Terms",
        _terms(manifest),
        "## Files",
        _files(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_it_is(manifest: Manifest, records: Mapping[str, RunRecord]) -> str:
    labels = ", ".join(f"{name} = {value}" for name, value in manifest.labels.items())
    columns = (
        "member",
        "network",
        "trained on",
        "epochs",
        "spacing y × x mm",
        "patch y × x",
        "utseg",
        "finished",
    )
    rows = [
        (
            member.name,
            member.network,
            member.selection,
            str(records[member.name].epochs),
            " × ".join(f"{value:.3g}" for value in records[member.name].plan.spacing_yx_mm),
            " × ".join(map(str, records[member.name].plan.patch_size)),
            records[member.name].versions.get("utseg", NOTHING),
            "yes" if member.finished else "no",
        )
        for member in manifest.members
    ]
    together = " Several members: the mean of their probabilities." if len(manifest.members) > 1 else ""
    return "\n\n".join(
        [
            f"It segments 2-D slices of {_plain(', '.join(manifest.channel_names))} into {_plain(labels)}.{together} "
            "All settings are in each member's `run.json`: the plan with its reasons, the recipe, the network's settings.",
            _table("Members", columns, rows),
            "To use it: `utseg_import_model FILE.zip`, then "
            f"`utseg_predict -i IMAGES -o MASKS -d {_plain(manifest.dataset)}`.",
        ]
    )


def _trained_on(manifest: Manifest) -> str:
    columns = ("member", "side", "cases", "subjects", "subjects per group")
    rows = [
        (member.name, side, str(cohort.cases), _count(cohort.subjects), _groups(cohort))
        for member in manifest.members
        for side, cohort in (("training", member.training), ("held back", member.validation))
    ]
    return _table(f"Dataset {manifest.dataset}", columns, rows)


def _privacy(manifest: Manifest) -> str:
    if manifest.with_case_ids:
        return "The names of the cases are in `run.json`, as its makers chose."
    return (
        "The names of cases and subjects, which can point at people, were left out of `run.json`; counts are kept. So are groups, "
        "except those in which a value belongs to a single subject, unless they are ones of the field (vendor, centre, pathology, …)."
    )


def _scores(table: ScoreTable) -> str:
    scores = table.scores
    title = f"{', '.join(table.runs)}: {scores.all.cases} held-back cases, {scores.all.subjects} subjects"
    groups: list[tuple[str, GroupScores]] = [("all", scores.all)]
    groups += [
        (f"{column} {value}", group)
        for column, values in sorted(scores.groups.items())
        for value, group in values.items()
    ]
    columns = (
        *("group", "label", "subjects", "cases", "Dice", "95 % interval", "HD95 mm", "ASSD mm"),
        *("missed", "extra", "neither"),
    )
    rows = [
        (
            value,
            name,
            str(group.subjects),
            str(group.cases),
            number(label.dice.mean, 3),
            interval(label.dice.interval95, 3),
            number(label.hd95_mm.mean if label.hd95_mm else None, 2),
            number(label.assd_mm.mean if label.assd_mm else None, 2),
            *(str(label.empty[key]) for key in ("prediction_empty", "reference_empty", "both_empty")),
        )
        for value, group in groups
        for name, label in group.labels.items()
    ]
    return f"{_table(title, columns, rows)}\n\n{EMPTY_NOTE}"


def _terms(manifest: Manifest) -> str:
    terms = manifest.terms
    lines = {
        "Licence": terms.licence or NO_LICENCE,
        "Citation": terms.citation or NOT_STATED,
        "Contact": terms.contact or NOT_STATED,
    }
    return "\n".join(f"- {name}: {_plain(text)}" for name, text in lines.items())


def _files(manifest: Manifest) -> str:
    weights = [
        (name, str(record.size), record.sha256)
        for name, record in sorted(manifest.files.items())
        if name.endswith(f"/{WEIGHTS_FILE}")
    ]
    table = _table("Weights", ("file", "bytes", "SHA-256"), weights)
    return (
        f"{table}\n\nWritten by utseg {_plain(manifest.utseg_version)}; all checksums are in `manifest.json`."
    )


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Under a heading of the third level."""
    plain = [[_plain(cell) for cell in row] for row in rows]
    return "#" + to_markdown([Table(_plain(title), columns, plain)]).rstrip("\n")


def _groups(cohort: Cohort) -> str:
    parts = [
        f"{column}: " + ", ".join(f"{value} ({count})" for value, count in values.items())
        for column, values in cohort.groups.items()
    ]
    return "; ".join(parts) or NOTHING


def _count(value: int | None) -> str:
    return NOTHING if value is None else str(value)


def _plain(text: str) -> str:
    """Names come from data: none of them is HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
