"""Settings that make each network small enough for a test, every part of it still there."""

from typing import Any

import torch
from torch import nn

from utseg.networks import build_network, network_settings

SMALL: dict[str, dict[str, Any]] = {
    "UTNet": {"base_channels": 4},
    "UTNet_encoder": {"base_channels": 4},
    "ResUNet": {"base_channels": 4},
    "UNet": {"base_channels": 4},
    "AttentionUNet": {"base_channels": 4},
    "CBAM_UNet": {"base_channels": 4},
    "DualAttention_UNet": {"base_channels": 4},
    "ResNet50_UNet": {"resnet_width": 4, "resnet_units": (2, 1, 1)},
    "ResNet50_UTNet": {"resnet_width": 4, "resnet_units": (2, 1, 1)},
    "TransUNet": {
        "resnet_width": 4,
        "resnet_units": (2, 1, 1),
        "hidden_size": 16,
        "transformer_layers": 2,
        "attention_heads": 2,
        "mlp_size": 24,
        "decoder_channels": (16, 8, 8, 8, 4),
    },
    "SwinUNet": {
        "embed_channels": 8,
        "depths": (2, 1),
        "window_heads": (2, 4),
        "mlp_ratio": 1,
        "drop_path": 0,
    },
    "MedFormer": {"base_channels": 4, "attention_blocks": 1, "fusion_depth": 1},
    "nnUNet": {"base_channels": 4, "patch_size": (64, 64)},
    "FCN": {"base_channels": 4},
}

# Every part of a network once, where depth does not matter and work is done node by node.
_ONE_LEVEL = {"block_list": (0, 1), "num_heads": (2,), "num_blocks": (1,)}
FLAT: dict[str, dict[str, Any]] = {
    "UTNet": _ONE_LEVEL,
    "UTNet_encoder": _ONE_LEVEL,
    "AttentionUNet": {"levels": 2},
    "ResNet50_UNet": {"resnet_units": (1, 1, 1)},
    "ResNet50_UTNet": {"resnet_units": (1, 1, 1), "attention_blocks": (3,)},
    "TransUNet": {"resnet_units": (1, 1, 1), "transformer_layers": 1},
    "SwinUNet": {"depths": (1, 2)},
    "nnUNet": {"patch_size": (16, 16)},
}


def flat_settings(name: str) -> dict[str, Any]:
    """Small, with one level, or with as few layers as the network can have."""
    levels = {"levels": 1} if "levels" in network_settings(name) else {}
    return {**SMALL.get(name, {}), **levels, **FLAT.get(name, {})}


def build_flat(name: str, **settings: object) -> nn.Module:
    """A network of these settings."""
    return build_small(name, **{**flat_settings(name), **settings})


def build_small(name: str, **settings: object) -> nn.Module:
    """A small network with seeded weights, for one channel and four classes unless said otherwise. `settings` come on top."""
    torch.manual_seed(0)
    fallback = {"base_channels": 4} if "base_channels" in network_settings(name) else {}
    return build_network(
        name, **{"in_channels": 1, "num_classes": 4, **SMALL.get(name, fallback), **settings}
    )
