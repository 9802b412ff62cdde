"""The default recipe of the plain U-Net: the same as UTNet's, so that a comparison compares networks."""

from trainers.loop import train_by_recipe
from trainers.recipe import OptimizerSettings, Recipe
from utseg.training import TrainRequest, TrainResult

RECIPE = Recipe(network_name="UNet", optimizer=OptimizerSettings(learning_rate=0.05))


def train(request: TrainRequest) -> TrainResult:
    """Trains the U-Net; see `trainers.loop.train_by_recipe`."""
    return train_by_recipe(request, RECIPE)
