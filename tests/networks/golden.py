"""Golden cases of the official UTNet, and the formula that fills weights so that none need storing."""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

CASES = (
    "utnet_default",
    "utnet_no_rel_pos",
    "utnet_maxpool_projection",
    "utnet_234_rs4",
    "utnet_encoder_only",
    "resunet_no_attention",
    "utnet_paper_size",
)


def formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of an official state dict entry."""
    rng = np.random.default_rng(zlib.crc32(f"0:{name}".encode()))
    a = rng.standard_normal(shape).astype(np.float32)
    leaf = name.rsplit(".", 1)[-1]
    if leaf == "running_var":
        a = np.abs(a) * 0.2 + 1
    elif leaf == "relative_position_bias_table" or leaf.startswith("key_rel_"):
        a = a * 0.5
    elif len(shape) == 4:
        a = a / np.sqrt(shape[1] * shape[2] * shape[3])
    elif leaf == "weight":
        a = a * 0.1 + 1
    else:
        a = a * 0.1
    return torch.from_numpy(np.asarray(a, dtype=np.float32))


@cache
def index(folder: Path) -> dict[str, Any]:
    """Configurations, state dict names and shapes of all cases."""
    return json.loads((folder / "index.json").read_text())


def state_dict(entry: dict[str, Any]) -> dict[str, Tensor]:
    """The official weights of a case."""
    return {name: formula(name, tuple(shape)) for name, shape in entry["official_keys"].items()}


def settings(case: str, config: dict[str, Any]) -> dict[str, Any]:
    """An official configuration as settings of ours."""
    return {
        "num_classes": config["num_classes"],
        "base_channels": config["base_chan"],
        "block_list": tuple(int(level) for level in config["block_list"]),
        "num_blocks": tuple(config["num_blocks"]),
        "num_heads": tuple(config["num_heads"]),
        "reduce_size": config["reduce_size"],
        "projection": config.get("projection", "interp"),
        "relative_position": "2d-bias" if config.get("rel_pos", True) else "none",
        "aux_loss": config["aux_loss"],
        "attention_in": "encoder" if case == "utnet_encoder_only" else "both",
    }


def outputs(folder: Path, case: str) -> tuple[Tensor, list[Tensor]]:
    """Input and outputs (full, ½, …) of a case."""
    with np.load(folder / f"{case}.npz", allow_pickle=False) as stored:
        x = torch.from_numpy(stored["x"])
        return x, [torch.from_numpy(stored[f"y{i}"]) for i in range(len(stored.files) - 1)]
