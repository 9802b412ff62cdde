"""Rule for where prediction looks: through one window that it finds first, or everywhere."""

from typing import Any

from planners.decision import Decision
from utseg.fingerprint import Fingerprint
from utseg.planning.plan import FOCUS_MARGIN

FOUND = (
    "one window that is found first gave UTNet +.017 Dice (.002 … .042; 5 ACDC subjects held back) and the U-Net +.020 (−.001 … .046; 10), "
    "took HD95 from 29 and 34 mm to 5 and 6, and less than a third of the time"
)
STEP_SIZE = 0.5
OVERLAPPING = "half a window, as nnU-Net, where windows are everywhere: steps of .75 cost the U-Net .005 Dice (10 subjects), UTNet .003"


def planned_windows(
    fingerprint: Fingerprint,
    patch_size: tuple[int, int],
    spacing_yx_mm: tuple[float, float],
    long_training: bool,
) -> dict[str, Decision[Any]]:
    """One window where the structures of every case fit into it with a quarter to spare, for networks that train for minutes."""
    side = min(size * step for size, step in zip(patch_size, spacing_yx_mm, strict=True))
    extents = fingerprint.labelled_extents_mm
    if not extents:
        focus = Decision(False, "False: nothing is labelled that could be found first")
    elif long_training:
        focus = Decision(
            False,
            "False: one window gained after minutes of training, when networks paint islands that it leaves out; 7 of 20 cases lost, "
            ".007 Dice in the mean, and hours of training leave few islands",
        )
    else:
        fits = FOCUS_MARGIN * max(extents) <= side
        focus = Decision(
            fits,
            f"{fits}: the labels of a case take up to {max(extents):.0f} mm, which a window of {side:.0f} mm "
            f"{'holds' if fits else 'does not hold'} {FOCUS_MARGIN:g} times; {FOUND}",
        )
    return {"focus": focus, "step_size": Decision(STEP_SIZE, f"{STEP_SIZE:g}: {OVERLAPPING}")}
