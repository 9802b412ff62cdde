"""The recipe of convolutional networks: that of UTNet's publication, which trained its convolutional baselines by it too.

The same as that of the hybrids in every value, so that a comparison compares networks. Sources: peak learning rate .05, momentum .9,
weight decay 1e-4, five warm-up epochs, exponent .9, class weights and deep supervision: the publication and its official code. Nesterov
momentum and clipping at 12: nnU-Net. That the warm-up is at most a twentieth of the schedule is ours, for runs of few epochs.
"""

from utseg.trainer import Trainer
from utseg.training.recipe import OptimizerSettings, Recipe


def recipe(network_name: str) -> Recipe:
    """The recipe for one network of the family."""
    return Recipe(network_name=network_name, optimizer=OptimizerSettings(learning_rate=0.05))


train = Trainer(recipe)
