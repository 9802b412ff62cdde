"""The model card: what a model is, what it was trained on, how well it did on held-back subjects, and what it is not for. Markdown.

Says only what the manifest and the runs' records say. Headings follow Mitchell et al., *Model Cards for Model Reporting*, FAT* 2019.
"""

from collections.abc import Mapping
from typing import Any

from utseg.archive.manifest import Manifest
from utseg.evaluate.tables import EMPTY_NOTE, NOTHING, interval, number
from utseg.training.record import WEIGHTS_FILE, RunRecord

CARD = """\
# {{ records.values() | map(attribute="plan.network_name") | unique(true) | join(", ") }} trained on {{ manifest.dataset }}
{% for line in manifest.terms.description.splitlines() %}
{{ line }}
{%- endfor %}

It segments 2-D slices of {{ manifest.channel_names | join(", ") }} into
{%- for name, value in manifest.labels.items() %} {{ name }} = {{ value }}{{ "." if loop.last else "," }}{% endfor %}
{%- if manifest.members | length > 1 %} Several members: the mean of their probabilities.{% endif %} All settings are in each member's \
`run.json`: the plan with its reasons, the recipe, the network's settings.

| member | network | trained on | epochs | spacing y × x mm | patch y × x | utseg | finished |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{%- for member in manifest.members %}{% set record = records[member.name] %}
| {{ member.name }} | {{ record.plan.network_name }} | {{ record.selection }} | {{ record.epochs }} \
| {{ "%.3g × %.3g" % record.plan.preprocessing.spacing_yx_mm }} | {{ record.plan.patch_size | join(" × ") }} \
| {{ record.versions.get("utseg") }} | {{ "yes" if member.finished else "no" }} |
{%- endfor %}

To use it: `utseg_import_model FILE.zip`, then `utseg_predict -i IMAGES -o MASKS -d {{ manifest.dataset }}`.

## Use and limits

Research only. This is no medical device: it is not for diagnosis, nor for decisions about the care of a patient.

- Meant for images like those it was trained on: the same modality, view, channels and structures (see above).
- Scores of other scanners, centres, diseases and protocols than those below are not known; expect them to be lower. Look at masks before
  you use them.
- Masks of slices at the base and apex, and of rare anatomy, are where such networks fail most.
- Numbers below were measured on subjects that were held back from training but came from the same dataset. The weights are those of the
  end of training, which these subjects did not choose; if the model was chosen among several by them, the numbers are somewhat optimistic.
  They do not replace a test on your own data.

## Trained on

| member | side | cases | subjects | subjects per group |
| --- | ---: | ---: | ---: | ---: |
{%- for member in manifest.members %}
{%- for side, cohort in (("training", member.training), ("held back", member.validation)) %}
| {{ member.name }} | {{ side }} | {{ cohort.cases }} | {{ cohort.subjects }} |
{%- for column, values in cohort.groups.items() %} {{ column }}:
{%- for value, count in values.items() %} {{ value }} ({{ count }}){{ "" if loop.last else "," }}{% endfor %}{{ "" if loop.last else ";" }}
{%- else %} {{ none }}
{%- endfor %} |
{%- endfor %}
{%- endfor %}

{% if manifest.with_case_ids -%}
The names of the cases are in `run.json`, as its makers chose.
{%- else -%}
The names of cases and subjects, which can point at people, were left out of `run.json`; counts are kept. So are groups, except those in \
which a value belongs to a single subject, unless they are ones of the field (vendor, centre, pathology, …).
{%- endif %}

## Scores
{% for table in manifest.scores %}
### {{ table.runs | join(", ") }}: {{ table.scores.all.cases }} held-back cases, {{ table.scores.all.subjects }} subjects

| group | label | subjects | cases | Dice | 95 % interval | HD95 mm | ASSD mm | missed | extra | neither |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{%- for group, scores in groups(table.scores) %}
{%- for label, of_label in scores.labels.items() %}
| {{ group }} | {{ label }} | {{ scores.subjects }} | {{ scores.cases }} | {{ number(of_label.dice.mean, 3) }} \
| {{ interval(of_label.dice.interval95, 3) }} | {{ number(of_label.hd95_mm and of_label.hd95_mm.mean, 2) }} \
| {{ number(of_label.assd_mm and of_label.assd_mm.mean, 2) }} | {{ of_label.empty.prediction_empty }} \
| {{ of_label.empty.reference_empty }} | {{ of_label.empty.both_empty }} |
{%- endfor %}
{%- endfor %}

{{ empty_note }}
{% else %}
None are known: no subject was held back, or the training did not come to its end.
{% endfor %}
## Terms

- Licence: {{ manifest.terms.licence or "not stated; ask those who gave you the model before you use it or pass it on" }}
- Citation: {{ manifest.terms.citation or "not stated" }}
- Contact: {{ manifest.terms.contact or "not stated" }}

## Files

| weights | bytes | SHA-256 |
| --- | ---: | ---: |
{%- for name, file in manifest.files.items() if name.endswith(weights) %}
| {{ name }} | {{ file.size }} | {{ file.sha256 }} |
{%- endfor %}

Written by utseg {{ manifest.utseg_version }}; all checksums are in `manifest.json`.
"""


def model_card(manifest: Manifest, records: Mapping[str, RunRecord]) -> str:
    """The text of `MODEL_CARD.md`. `records` are the runs' by PLAN_2d/MODEL/FOLD."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(finalize=_plain, undefined=StrictUndefined, keep_trailing_newline=True)
    shown = {"number": number, "interval": interval, "empty_note": EMPTY_NOTE, "weights": f"/{WEIGHTS_FILE}"}
    return environment.from_string(CARD).render(manifest=manifest, records=records, groups=_groups, **shown)


def _groups(scores: Any) -> list[tuple[str, Any]]:
    of_columns = sorted(scores.groups.items())
    return [("all", scores.all)] + [
        (f"{column} {value}", group) for column, values in of_columns for value, group in values.items()
    ]


def _plain(value: object) -> str:
    """Names come from data: none of them is HTML, or ends a cell or row of a table."""
    text = NOTHING if value is None else str(value)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
