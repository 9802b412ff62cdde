"""Weights of the official UTNet, in and out.

The official state dict calls the stages inc, down1 … and up1 … (up1 is the coarsest), and splits attention channels as (dim_head, heads).
Ours are encoder.L, decoder.L and (heads, dim_head). The official code gives strided downsampling and bottleneck blocks to levels with
attention only; ours at other levels have no official form. Files are not read here; load them with weights_only=True.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from utseg.errors import InputError
from utseg.networks.layers.attention import EfficientAttention
from utseg.networks.layers.blocks import PreActivationBottleneck
from utseg.networks.pretrained.fit import misshapen, require_fit
from utseg.networks.utnet import AttentionUpStage, DownStage, PlainUpStage, TransformerBlock, UTNet

Names = dict[str, str]  # inside a stage, ours to official
_BLOCK = {
    **{f"norm{number}": f"bn{number}" for number in (1, 2, 3)},
    **{f"conv{number}": f"conv{number}" for number in (1, 2, 3)},
    "shortcut_norm": "shortcut.0",
    "shortcut": "shortcut.2",
}
_FEED_FORWARD = {"attention": "attn", "feed_forward.norm": "bn2", "feed_forward.conv": "mlp"}
_TRANSFORMER = {"norm": "bn1", **_FEED_FORWARD}
_DECODER = {"low_norm": "bn_l", "skip_norm": "bn_h", "project": "conv_ch", **_FEED_FORWARD}
_ATTENTION = {
    "bias.table": "relative_position_encoding.relative_position_bias_table",
    "logits.key_w": "relative_position_encoding.key_rel_w",
    "logits.key_h": "relative_position_encoding.key_rel_h",
}
# Buffers that official checkpoints carry and that hold nothing learnt.
_CONSTANTS = ("relative_position_index",)


def _stages(network: UTNet) -> Iterator[tuple[str, str, Names]]:
    """(our prefix, official prefix, names inside) of all that has weights. InputError where the official code has no such network."""
    deepest = len(network.decoder)
    for level, down in enumerate(network.encoder):
        assert isinstance(down, DownStage)
        attended = any(isinstance(block, TransformerBlock) for block in down.second)
        if level and not attended:
            if not down.pool:
                raise _no_form("downsampling is 'strided'", f"the encoder's level {level}")
            _check_basic(down.first, f"the encoder's level {level}")
        if not attended:
            _check_two(1 + len(down.second), f"the encoder's level {level}")
        stage, first = (f"down{level}.{'blocks' if attended else 'conv'}" if level else "inc"), int(down.pool)
        yield f"encoder.{level}.first", f"{stage}.{first}", _BLOCK
        for number in range(len(down.second)):
            inside = _TRANSFORMER if attended else _BLOCK
            yield f"encoder.{level}.second.{number}", f"{stage}.{first + 1 + number}", inside
    for level, up in enumerate(network.decoder):
        assert isinstance(up, AttentionUpStage | PlainUpStage)
        stage, attended = f"up{deepest - level}", isinstance(up, AttentionUpStage)
        if attended:
            yield f"decoder.{level}", f"{stage}.attn_decoder", _DECODER
        else:
            _check_basic(up.blocks[0], f"the decoder's level {level}")
            _check_two(len(up.blocks), f"the decoder's level {level}")
            yield f"decoder.{level}.project", f"{stage}.conv_ch", {"": ""}
        for number in range(len(up.blocks)):
            official = f"{stage}.{'blocks' if attended else 'conv'}.{number}"
            yield f"decoder.{level}.blocks.{number}", official, _BLOCK
    for level in range(len(network.heads)):
        yield f"heads.{level}", f"out{deepest - level}" if level else "outc", {"": ""}


def _check_basic(block: nn.Module, where: str) -> None:
    if isinstance(block, PreActivationBottleneck):
        raise _no_form("bottleneck is True", where)


def _check_two(blocks: int, where: str) -> None:
    if blocks != 2:
        raise InputError(
            f"conv_blocks is {blocks}, and {where} has no attention; the official UTNet has 2 blocks there, so its weights do not fit; "
            "change block_list or the setting"
        )


def _no_form(setting: str, where: str) -> InputError:
    return InputError(
        f"{setting}, and {where} has no attention; the official UTNet applies this setting at levels with attention only, "
        "so its weights do not fit; change block_list or the setting"
    )


def official_names(network: UTNet) -> dict[str, str]:
    """Every entry of our state dict → its official name. InputError where the official code has no such network."""
    ours = list(network.state_dict())
    found = {}
    for prefix, official, inside in _stages(network):
        for part, official_part in inside.items():
            start = ".".join(filter(None, (prefix, part))) + "."
            for name in (name for name in ours if name.startswith(start)):
                leaf = _ATTENTION.get(name.removeprefix(start), name.removeprefix(start))
                found[name] = ".".join(filter(None, (official, official_part, leaf)))
    return {name: found[name] for name in ours}


def _reorder(network: UTNet, name: str, value: Tensor, *, to_official: bool) -> Tensor:
    """Change between (heads, dim_head) and (dim_head, heads) where an entry has attention channels."""
    if ".attention.to_" not in name:
        return value
    owner, layer = name.rsplit(".to_", 1)
    attention = network.get_submodule(owner)
    assert isinstance(attention, EfficientAttention)
    if layer in ("qkv.depthwise.weight", "q.depthwise.weight", "kv.depthwise.weight"):
        return value
    axis = 1 if layer == "out.pointwise.weight" else 0
    groups = {"qkv": 3, "kv": 2}.get(layer.split(".")[0], 1)
    heads, dim_head = attention.heads, value.shape[axis] // groups // attention.heads
    inner = (heads, dim_head) if to_official else (dim_head, heads)
    split: Tensor = value.unflatten(axis, (groups, *inner))
    return split.transpose(axis + 1, axis + 2).flatten(axis, axis + 2)


def export_official_state_dict(
    network: UTNet, values: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Our state dict (or `values` named and shaped like it, such as gradients) under official names and in official order."""
    values = network.state_dict() if values is None else values
    return {
        official: _reorder(network, name, values[name], to_official=True)
        for name, official in official_names(network).items()
        if name in values
    }


def import_official_state_dict(network: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Fill a UTNet, in place, with an official state dict.

    Strict: InputError lists what is missing, unexpected or of another shape, and nothing is changed then. Batch counters
    (`num_batches_tracked`) may be absent; constant index buffers and the prefix `module.` of multi-GPU checkpoints are dropped.
    """
    if not isinstance(network, UTNet):
        raise InputError(f"official UTNet weights do not fit a {type(network).__name__}; build a UTNet")
    own = network.state_dict()
    given = _without_constants(state_dict)
    wanted = {official: name for name, official in official_names(network).items()}
    problems = {
        "missing": [n for n in wanted if n not in given and not n.endswith("num_batches_tracked")],
        "unexpected": [name for name in given if name not in wanted],
        "of another shape": misshapen(
            (name, value, own[wanted[name]].shape) for name, value in given.items() if name in wanted
        ),
    }
    require_fit("the official state dict does not fit this UTNet", problems, "check its settings")
    network.load_state_dict(from_official(network, state_dict), strict=False)


def is_official(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of the official UTNet: its stem is called so."""
    return "inc.0.conv1.weight" in _without_constants(state_dict)


def from_official(network: UTNet, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under our names and in our order. What the network lacks keeps its official name, what has another shape
    its value: whether they matter is for the caller.
    """
    own = network.state_dict()
    ours = {official: name for name, official in official_names(network).items()}
    translated = {}
    for official, value in _without_constants(state_dict).items():
        name = ours.get(official, official)
        fits = name in own and own[name].shape == value.shape
        translated[name] = _reorder(network, name, value, to_official=False) if fits else value
    return translated


def _without_constants(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): value
        for name, value in state_dict.items()
        if not name.endswith(_CONSTANTS)
    }
