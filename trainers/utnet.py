"""The default recipe of UTNet: SGD as published, with what makes short runs and small batches train as well."""

from trainers.loop import train_by_recipe
from trainers.recipe import OptimizerSettings, Recipe
from utseg.training import TrainRequest, TrainResult

RECIPE = Recipe(network_name="UTNet", optimizer=OptimizerSettings(learning_rate=0.05))


def train(request: TrainRequest) -> TrainResult:
    """Trains UTNet; see `trainers.loop.train_by_recipe`."""
    return train_by_recipe(request, RECIPE)
