"""The recipe of convolutional networks with attention in them, UTNet first: SGD as published.

Sources: peak learning rate .05, momentum .9, weight decay 1e-4, five warm-up epochs, exponent .9, class weights: UTNet's publication
and its official code. Nesterov momentum and clipping at 12: nnU-Net, for short runs and small batches. That the warm-up is at most a
twentieth of the schedule is ours, for runs of few epochs. From pretrained weights (a ResNet-50) layers learn at the same rate, as the
official code does it.
"""

from utseg.trainer import Trainer
from utseg.training.recipe import OptimizerSettings, Recipe


def recipe(network_name: str) -> Recipe:
    """The recipe for one network of the family."""
    return Recipe(network_name=network_name, optimizer=OptimizerSettings(learning_rate=0.05))


train = Trainer(recipe)
