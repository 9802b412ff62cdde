"""What a run costs to predict with: multiply-accumulates of its network's forward pass. The network is not filled, nothing is computed."""

from utseg.files import sha256_json
from utseg.planning.memory import forward_gmac
from utseg.training.record import RunRecord

FIELD_MM = 320.0


def gmac_of_slice(record: RunRecord, known: dict[str, float]) -> float:
    """10⁹ multiply-accumulates for a slice of 320 × 320 mm, all mirrorings included, overlap of windows not.

    Plans of other spacings and patches are so compared on the same field of view. `known` remembers answers between calls.
    """
    plan = record.plan
    height, width = (
        size * mm for size, mm in zip(plan.patch_size, plan.preprocessing.spacing_yx_mm, strict=True)
    )
    key = sha256_json(
        [record.network, record.network_settings, record.in_channels, record.num_classes, plan.patch_size]
    )
    if key not in known:
        known[key] = forward_gmac(
            record.network,
            in_channels=record.in_channels,
            num_classes=record.num_classes,
            patch_size=plan.patch_size,
            settings=record.network_settings,
        )
    mirrorings: int = 2 ** len(set(plan.augmentation.mirror_axes))
    return known[key] * (FIELD_MM**2 / (height * width)) * mirrorings
