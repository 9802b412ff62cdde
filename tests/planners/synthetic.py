"""Fingerprints of datasets that do not exist, and a cheap stand-in for the counted memory."""

from typing import Any

import numpy as np
from hypothesis import strategies as st

from utseg.fingerprint import CaseFingerprint, ChannelFigures, Fingerprint, LabelFigures
from utseg.fingerprint.aggregate import aggregate_cases, aggregate_groups
from utseg.fingerprint.model import PERCENTILES
from utseg.planning.memory import GB, MemoryEstimate, StepKind
from utseg.planning.task import NetworkTask
from utseg.rawdata.ways import Way


def label_figures(
    size_mm: float, thickness_mm: float, spacing_mm: float, offset_yx_mm: tuple[float, float] = (0.0, 0.0)
) -> LabelFigures:
    side = max(1, round(size_mm / spacing_mm))
    return LabelFigures(
        voxels=side * side * 4,
        volume_ml=size_mm * size_mm * 32 / 1000,
        slices=4,
        extent_zyx_px=(4, side, side),
        extent_zyx_mm=(32.0, side * spacing_mm, side * spacing_mm),
        slice_box_px_largest=side,
        slice_box_px_median=float(side),
        diameter_mm=size_mm,
        thickness_mm=thickness_mm,
        offset_yx_mm=offset_yx_mm,
    )


def make_case(
    number: int,
    *,
    size_yx: tuple[int, int],
    spacing_yx_mm: tuple[float, float],
    structures_mm: dict[str, float],
    foreground_mm: float,
    vendor: str = "A",
    slices: int = 10,
    normal: tuple[float, float, float] = (0.0, 0.0, 1.0),
    darker: float = 0.99,
    offset_yx_mm: tuple[float, float] = (0.0, -20.0),
    thickness_share: float = 1.0,
) -> CaseFingerprint:
    """One case; structures are `thickness_share` as thick as wide. `darker`: share of labelled voxels below the upper percentiles."""
    spacing = min(spacing_yx_mm)
    channel = ChannelFigures(
        percentiles=tuple(float(value) for value in PERCENTILES),
        labelled_below=tuple(0.0 if value <= 50 else darker for value in PERCENTILES),
        minimum=0.0,
        maximum=1000.0,
        mean=100.0 + number,
        sd=30.0,
    )
    return CaseFingerprint(
        case_id=f"case{number}",
        subject=f"subject{number // 2}",
        phase="ES" if number % 2 else "ED",
        groups={"vendor": vendor},
        frame=None,
        checksums={},
        stamps={},
        voxels_sha256=(str(number),),
        size_zyx=(slices, *size_yx),
        spacing_zyx_mm=(8.0, *spacing_yx_mm),
        orientation="LPS",
        way=Way(y=(0, 1, 0), x=(normal[2], 0, 0)),
        nonzero_share=1.0,
        ignored_share=0.0,
        channels=(channel,),
        labels={
            name: label_figures(size, thickness_share * size, spacing, offset_yx_mm)
            for name, size in structures_mm.items()
        },
        foreground=label_figures(foreground_mm, foreground_mm, spacing) if structures_mm else None,
    )


def make_fingerprint_of(cases: list[CaseFingerprint], labels: dict[str, int] | None = None) -> Fingerprint:
    names = dict.fromkeys(name for case in cases for name in case.labels)
    return Fingerprint(
        dataset="Synthetic",
        layout="nnunet",
        channel_names=("cine",),
        labels=labels or {"background": 0, **{name: value for value, name in enumerate(names or ["LV"], 1)}},
        cases=tuple(cases),
        overall=aggregate_cases(cases),
        by_group=aggregate_groups(cases),
        warnings=(),
    )


def hearts(**changes: Any) -> Fingerprint:
    """Twenty cases like those of a cardiac cohort."""
    case: dict[str, Any] = {
        "size_yx": (256, 216),
        "spacing_yx_mm": (1.4, 1.4),
        "structures_mm": {"LV": 45.0, "MYO": 47.0, "RV": 40.0},
        "foreground_mm": 110.0,
    }
    return make_fingerprint_of([make_case(number, **(case | changes)) for number in range(20)])


@st.composite
def fingerprints(draw: st.DrawFn) -> Fingerprint:
    """Images of 20 … 600 pixels at 0.3 … 3 mm, structures from a pixel to the whole image, one or many cases."""
    size = draw(st.tuples(st.integers(20, 600), st.integers(20, 600)))
    spacing = draw(st.floats(0.3, 3.0))
    oblong = draw(st.sampled_from([1.0, 1.0, 1.0, 2.5]))
    field_mm = min(size) * spacing
    foreground = draw(st.floats(0.05, 1.0)) * field_mm
    structure = draw(st.floats(0.05, 1.0)) * foreground
    count = draw(st.sampled_from([1, 4, 30]))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    darker = draw(st.floats(0.7, 1.0))
    return make_fingerprint_of(
        [
            make_case(
                number,
                size_yx=size,
                spacing_yx_mm=(spacing * float(rng.uniform(0.9, 1.1)), spacing * oblong),
                structures_mm={"LV": structure, "RV": foreground},
                foreground_mm=foreground,
                vendor="AB"[number % 2],
                slices=draw(st.just(8)),
                darker=darker,
                normal=(0.0, 0.0, float(rng.choice([1, 1, 1, -1]))),
            )
            for number in range(count)
        ]
    )


def formula_memory(task: NetworkTask, kind: StepKind) -> MemoryEstimate:
    """Close to what UTNet takes (8 kB a pixel at 32 channels), without running it; for tests of the rules, not of the counting."""
    settings, (height, width) = task.settings, task.patch_size
    base, levels = settings["base_channels"], settings["levels"]
    parameters = 10_000_000 * (base / 32) ** 2 * 4.0 ** (levels - 4) * 4 / GB
    keys = 1 + settings["reduce_size"] ** 2 / 640
    activations = 8000 * keys * base / 32 * height * width * task.batch_size / GB
    return MemoryEstimate(parameters, parameters, parameters, activations)
