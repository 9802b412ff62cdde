"""The recipe of UTNet's publication, which trained its convolutional baselines by it too: SGD, for networks with and without attention.

Sources: peak learning rate .05, momentum .9, weight decay 1e-4, five warm-up epochs, exponent .9, class weights and deep supervision: the
publication and its official code. Nesterov momentum and clipping at 12: nnU-Net, for short runs and small batches. That the warm-up is at
most a twentieth of the schedule is ours, for runs of few epochs, and so is the rate of orthogonal updates, for plans that ask for them
(rates of .03 and .06 learnt alike; their decay of .1 gains on scanners of another dataset what .01 does not). From pretrained weights (a
ResNet-50) layers learn at the same rate, as the official code does it.
"""

from utseg.training.recipe import OptimizerSettings, Recipe


def recipe(network_name: str) -> Recipe:
    """The recipe for one network."""
    return Recipe(
        network_name=network_name, optimizer=OptimizerSettings(learning_rate=0.05, orthogonal_rate=0.03)
    )
