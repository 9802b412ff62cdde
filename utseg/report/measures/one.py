"""The page of one cine: what to doubt, the measures beside normal ranges, the curve, the contours over the cycle."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from utseg.cardiac.normal_ranges import NORMAL, SOURCES, NormalRange, Sex, sex_of
from utseg.errors import number_of
from utseg.evaluate.tables import NOTHING, Table
from utseg.figures.charts import Curve, curves
from utseg.figures.colours import label_colours
from utseg.label_map import Labels
from utseg.measure.record import CineMeasures, MeasuresRecord
from utseg.report.measures.contours import CineContours
from utseg.report.measures.origin import origin_section, when_measured
from utseg.report.measures.words import HEADLINES, name_of, unit_of, value_of
from utseg.report.page import AnyBlock, Block, Charts, Page, Section, TableBlock, note

KIND = "Cardiac measures, for research only"
SCRIPT = "player.js"
FRAMES_NOTE = "Frames are counted from 0, as in measures.csv."
NO_DOUBT = "None of the checks found anything to doubt. They do not replace a look at the contours."
RANGES_NOTE = (
    "Healthy adults: mean ± standard deviation (mean ± 1.96 sd, within which 95 % of them lie). A dash: no source at hand gives it. "
    "They were measured by other people with other software; a value beyond them is no finding."
)
BOTH_NOTE = "The sex is not known, so that both stand here."
CURVES = {"LV": ("lv_ml", 1), "RV": ("rv_ml", 0), "myocardium": ("myo_ml", 2)}
"""Names on the page: where their volumes stand, and the page's colour that is like their outline's."""
Link = tuple[str, str]
SEXES: tuple[Sex, ...] = ("women", "men")


def page_of_cine(
    record: MeasuresRecord,
    measures: CineMeasures,
    drawn: CineContours | None,
    labels: Labels,
    links: Sequence[Link],
) -> Page:
    """The page. drawn: None where there are no pictures."""
    notices = [f"{drawn.lacks[0].upper()}{drawn.lacks[1:]}."] if drawn and drawn.lacks else []
    about: list[AnyBlock] = []
    if drawn:
        about = [_player(measures, drawn, labels), Block("labels_legend"), *_montages(measures, drawn)]
    return Page(
        kind=KIND,
        title=measures.cine,
        made=_made(record, measures),
        notices=notices,
        sections=[
            Section("glance", "At a glance", [_tiles(measures), *_doubts(measures)]),
            Section("cycle", "Volumes over the cycle", _curve(measures), "Volumes"),
            Section("contours", "Contours over the cycle", about, "Contours"),
            Section("measures", "Measures beside what healthy adults have", _table(measures), "Measures"),
            origin_section(record, measures),
        ],
        labels=labels if drawn else {},
        scripts=(SCRIPT,),
        links=links,
    )


def _made(record: MeasuresRecord, measures: CineMeasures) -> list[str]:
    """What stands below the title: whose heart, and how it was imaged."""
    depth, height, width = measures.spacing_zyx_mm
    known = {
        "{:.0f} ms a frame": measures.frame_ms,
        "{:.0f} beats/min": measures.heart_rate_bpm,
        "{:.2f} m": measures.height_m,
        "{:.1f} kg": measures.weight_kg,
        "body surface {:.2f} m²": measures.bsa_m2,
    }
    return [
        f"subject {measures.subject}",
        *(f"{column.replace('_', ' ')} {value}" for column, value in measures.groups.items() if value),
        number_of(measures.frames, "frame"),
        f"pixels of {height:.2f} × {width:.2f} mm, slices {depth:.1f} mm apart",
        *(words.format(value) for words, value in known.items() if value is not None),
        when_measured(record),
    ]


def sex_in(measures: CineMeasures) -> Sex | None:
    """The sex, where the groups say it."""
    told = (sex_of(value) for column, value in measures.groups.items() if column.casefold() == "sex")
    return next(told, None)


def _tiles(measures: CineMeasures) -> Block:
    tiles = [
        {"name": name_of(column), "value": value_of(column, measures.values[column]), "unit": unit_of(column)}
        for column in HEADLINES
        if measures.values.get(column) is not None
    ]
    return Block("tiles", tiles)


def _doubts(measures: CineMeasures) -> list[AnyBlock]:
    flags = sorted(measures.flags, key=lambda flag: flag.severity != "check")
    heading = Block("heading", "What to doubt")
    return [heading, Block("doubts", flags) if flags else note(NO_DOUBT)]


def _curve(measures: CineMeasures) -> list[AnyBlock]:
    """The volumes of all frames, with ED and ES; nothing for a cine without labels of the heart."""
    each = measures.frame_ms or 1.0
    x = [frame * each for frame in range(measures.frames)]
    lines = []
    for name, (key, colour) in CURVES.items():
        ml: Sequence[float | None] = getattr(measures.curve, key)
        if any(value is not None for value in ml):
            lines.append(Curve(name, colour, x, [math.nan if value is None else value for value in ml]))
    if not lines:
        return []
    highest = max(value for line in lines for value in line.y if math.isfinite(value))
    unit = "frame" if measures.frame_ms is None else "ms"
    marks = [(x[frame], name) for name, frame in phases(measures).items()]
    chart = curves("Volume, ml", unit, lines, (0.0, highest), marks=marks, frames=x)
    found = " and ".join(f"{name} at frame {frame}" for name, frame in phases(measures).items())
    about = f"{found or 'Neither ED nor ES was found'}. {FRAMES_NOTE}"
    return [Charts("Volumes of LV, RV and myocardium", [chart]), note(about)]


def phases(measures: CineMeasures) -> dict[str, int]:
    """The frames of ED and ES, where they are known."""
    found = {"ED": measures.ed_frame, "ES": measures.es_frame}
    return {name: frame for name, frame in found.items() if frame is not None}


def _player(measures: CineMeasures, drawn: CineContours, labels: Labels) -> Block:
    image = drawn.page["image"]
    script: dict[str, Any] = drawn.page | {
        "image": image and {key: value for key, value in image.items() if key != "data"},
        "cine": measures.cine,
        "frames": measures.frames,
        "phases": phases(measures),
        "frameMs": measures.frame_ms,
        "labels": [{"name": name, "colour": colour} for name, colour in label_colours(labels).items()],
        "volumes": [{"name": name, "ml": getattr(measures.curve, key)} for name, (key, _) in CURVES.items()],
    }
    return Block("player", {"image": image, "script": script})


def _montages(measures: CineMeasures, drawn: CineContours) -> list[AnyBlock]:
    """All slices at ED and at ES, which stand still and can be printed."""
    count = len(drawn.page["slices"])
    rows = []
    for name, frame in phases(measures).items():
        cells = [
            {
                "slice": shown,
                "place": frame * count + index,
                "paths": drawn.page["paths"][frame * count + index],
            }
            for index, shown in enumerate(drawn.page["slices"])
        ]
        rows.append({"name": name, "frame": frame, "cells": cells})
    return [Block("montages", {"stack": drawn.page, "rows": rows, "cine": measures.cine})] if rows else []


def _table(measures: CineMeasures) -> list[AnyBlock]:
    """The measures, each beside the normal ranges of the patient's sex, or of both where it is not known."""
    sex = sex_in(measures)
    sexes = (sex,) if sex else SEXES
    ordered = [*(column for column in HEADLINES if column in measures.values), *measures.values]
    rows, used, unknown = [], [], []
    for column in dict.fromkeys(ordered):
        value, ranges = measures.values[column], NORMAL.get(column, {})
        if value is None:
            unknown.append(name_of(column))
            continue
        shown = [_range_text(ranges.get(each), column) for each in sexes]
        used += [found.source for found in ranges.values()]
        source = next(iter(ranges.values())).source if ranges else ""
        cells = [name_of(column), value_of(column, value), unit_of(column), *shown]
        rows.append([*cells, _place(value, ranges, sexes), source])
    heads = ["measure", "value", "unit", *(f"healthy {each}" for each in sexes), "the value is", "source"]
    listed = "; ".join(f"{key}: {SOURCES[key]}" for key in dict.fromkeys(used))
    about = f"{RANGES_NOTE}{'' if sex else ' ' + BOTH_NOTE} {listed}"
    lacking = [note(f"Not known, for want of what they need: {', '.join(unknown)}.")] if unknown else []
    return [TableBlock(Table("Measures", heads, rows, about), titled=False), *lacking]


def _range_text(found: NormalRange | None, column: str) -> str:
    if found is None:
        return NOTHING
    mean, sd, low, high = (value_of(column, value) for value in (found.mean, found.sd, found.low, found.high))
    return f"{float(mean):g} ± {float(sd):g} ({float(low):.0f} … {float(high):.0f})"


def _place(value: float, ranges: Mapping[Sex, NormalRange], sexes: Sequence[Sex]) -> str:
    """Where a value lies against the range: "within", "above"; where the sexes differ, of each."""
    if not ranges:
        return ""
    places = {sex: ranges[sex].place(value) for sex in sexes}
    if len(set(places.values())) == 1:
        return next(iter(places.values()))
    return ", ".join(f"{place} ({sex})" for sex, place in places.items())
