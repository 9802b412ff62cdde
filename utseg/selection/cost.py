"""What a run costs to predict with: multiply-accumulates of its network's forward pass. The network is not filled, nothing is computed."""

from utseg.planning.memory import forward_gmac
from utseg.planning.task import planned_task
from utseg.training.record import RunRecord

FIELD_MM = 320.0


def gmac_of_slice(record: RunRecord) -> float:
    """10⁹ multiply-accumulates for a slice of 320 × 320 mm, all mirrorings included, overlap of windows not.

    Plans of other spacings and patches are so compared on the same field of view.
    """
    plan = record.plan
    height, width = (
        size * mm for size, mm in zip(plan.patch_size, plan.preprocessing.spacing_yx_mm, strict=True)
    )
    mirrorings: int = 2 ** len(set(plan.augmentation.mirror_axes))
    return forward_gmac(planned_task(plan)) * (FIELD_MM**2 / (height * width)) * mirrorings
