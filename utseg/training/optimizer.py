"""The optimizer of a recipe: which parameters it decays, and how fast each layer learns. The learning rate over time is the loop's."""

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from utseg.networks.network import SegmentationNetwork
from utseg.training.muon import ORTHOGONAL, Muon
from utseg.training.recipe import OptimizerSettings

SCALE = "scale"
"""In each parameter group: what the schedule's learning rate is multiplied by."""


SMALLEST_SIDE = 8
"""Channels that a matrix has on both sides to be stepped as one: fewer are images, classes or depthwise kernels."""


def make_optimizer(
    network: SegmentationNetwork, settings: OptimizerSettings, *, pretrained: bool, orthogonal: bool = False
) -> Optimizer:
    """The recipe's optimizer over all parameters of the network. `pretrained`: the run starts from weights.

    `orthogonal`: updates of weight matrices are made so, where the recipe is SGD's and has a rate for it.
    """
    decay = settings.pretrained_layer_decay if pretrained else 1.0
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    scales = layer_scales(network, decay)
    spared = set() if settings.name == "sgd" else _not_decayed(network)
    muon = orthogonal and settings.can_be_orthogonal
    matrices = _matrices(network) if muon else set()
    for name, parameter in network.named_parameters():
        scale, weight_decay = scales[name], 0.0 if name in spared else settings.weight_decay
        if name in matrices:
            scale *= settings.orthogonal_rate / settings.learning_rate
            weight_decay = settings.orthogonal_decay
        groups.setdefault((scale, weight_decay, name in matrices), []).append(parameter)
    listed = [
        {"params": parameters, "weight_decay": weight_decay, SCALE: scale}
        | ({ORTHOGONAL: matrix} if muon else {})
        for (scale, weight_decay, matrix), parameters in groups.items()
    ]
    if settings.name == "adamw":
        return AdamW(listed, settings.learning_rate, settings.betas)
    if muon:
        return Muon(listed, settings.learning_rate, settings.momentum, nesterov=settings.nesterov)
    nesterov = settings.nesterov and settings.momentum > 0
    return SGD(listed, settings.learning_rate, settings.momentum, nesterov=nesterov)


def _not_decayed(network: SegmentationNetwork) -> set[str]:
    """All but the weights of convolutions and linear layers, as Swin and ViT have it. (With SGD, UTNet decays everything.)"""
    vectors = {name for name, parameter in network.named_parameters() if parameter.ndim < 2}
    return vectors | network.position_tables()


def _matrices(network: SegmentationNetwork) -> set[str]:
    """Weights that take maps to maps: those of convolutions and linear layers, but of the first, of heads and of depthwise ones."""
    apart = network.position_tables() | set(network.class_axes())
    return {
        name
        for name, parameter in network.named_parameters()
        if name not in apart and parameter.ndim > 1 and min(parameter.shape[:2]) >= SMALLEST_SIDE
    }


def layer_scales(network: SegmentationNetwork, decay: float) -> dict[str, float]:
    """Learning rate of each parameter relative to the recipe's: decay^(layers above it), 1 for what is in no pretrained layer."""
    layers = network.pretrained_layers()
    scales = {}
    for name, _ in network.named_parameters():
        above = (
            len(layers) - position for position, prefixes in enumerate(layers) if name.startswith(prefixes)
        )
        scales[name] = decay ** next(above, 0)
    return scales


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Sets the schedule's rate, times each group's scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[SCALE]
