"""`measures.csv`, one row a cine, and `curves.csv`, one row a frame. What is not known is an empty field; frames are counted from 0."""

from collections.abc import Sequence
from pathlib import Path

from utseg.cardiac.volumes import AT_PHASES, UNITS, column_of
from utseg.evaluate.records import to_csv
from utseg.files import write_text
from utseg.measure.record import CineMeasures

MEASURES_TABLE, CURVES_TABLE = "measures.csv", "curves.csv"
ABOUT = ("frames", "frame_ms", "heart_rate_bpm", "height_m", "weight_kg", "bsa_m2", "basal_rule")
MEASURE_COLUMNS = tuple(map(column_of, dict.fromkeys((*AT_PHASES, *UNITS))))
CURVES = ("lv_ml", "rv_ml", "myo_ml")


def write_tables(cines: Sequence[CineMeasures], folder: Path) -> None:
    """Writes both."""
    groups = tuple(dict.fromkeys(column for cine in cines for column in cine.groups))
    rows = [
        cine.groups
        | cine.model_dump(include={"cine", "subject", "ed_frame", "es_frame", *ABOUT})
        | cine.values
        | {"flags": "; ".join(dict.fromkeys(flag.name for flag in cine.flags))}
        for cine in cines
    ]
    columns = ("cine", "subject", "ed_frame", "es_frame", *MEASURE_COLUMNS, *ABOUT, *groups, "flags")
    write_text(folder / MEASURES_TABLE, to_csv(rows, columns))
    frames = [
        {"cine": cine.cine, "frame": frame, "lv_ml": lv, "rv_ml": rv, "myo_ml": myo}
        for cine in cines
        for frame, (lv, rv, myo) in enumerate(
            zip(cine.curve.lv_ml, cine.curve.rv_ml, cine.curve.myo_ml, strict=True)
        )
    ]
    write_text(folder / CURVES_TABLE, to_csv(frames, ("cine", "frame", *CURVES)))
