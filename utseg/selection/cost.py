"""What a run costs to predict with: multiply-accumulates of its network's forward pass. The network is not filled, nothing is computed."""

from typing import Any

from utseg.files import sha256_json
from utseg.training.record import RunRecord

FIELD_MM = 320.0


def gmac_of_slice(record: RunRecord, known: dict[str, float] | None = None) -> float:
    """10⁹ multiply-accumulates for a slice of 320 × 320 mm, all mirrorings included, overlap of windows not.

    Plans of other spacings and patches are so compared on the same field of view. `known` remembers answers between calls.
    """
    plan = record.plan
    height, width = (
        size * mm for size, mm in zip(plan.patch_size, plan.preprocessing.spacing_yx_mm, strict=True)
    )
    mirrorings: int = 2 ** len(set(plan.augmentation.mirror_axes))
    patches = FIELD_MM**2 / (height * width)
    known = {} if known is None else known
    settings = {
        **record.network_settings,
        "in_channels": record.in_channels,
        "num_classes": record.num_classes,
    }
    key = sha256_json([record.network, settings, list(plan.patch_size)])
    if key not in known:
        known[key] = _gmac_of_patch(record, settings)
    return known[key] * patches * mirrorings


def _gmac_of_patch(record: RunRecord, settings: dict[str, Any]) -> float:
    import torch

    from utseg.networks import build_network, forward_macs

    with torch.device("meta"):
        network = build_network(record.network, **settings)
        patch_BCHW = torch.empty(1, record.in_channels, *record.plan.patch_size)
    return forward_macs(network, patch_BCHW).computed / 1e9
