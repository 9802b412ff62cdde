"""The recipe: how a network is trained, as one frozen value composed of small ones.

What is planned from the data (patch, batch, epochs, network size, augmentation) is in the Plan.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from utseg.errors import SettingError, UsageError
from utseg.extensions import find, names
from utseg.label_map import Labels, has_regions, structures
from utseg.networks.losses import LossSettings
from utseg.planning.override import override_for, settable_keys
from utseg.planning.plan import PREPROCESSING_PREFIX, Plan
from utseg.settings import Settings, setting_keys, unknown_key, with_settings

NotNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Amp = Literal["auto", "bfloat16", "float16", "off"]


class OptimizerSettings(Settings):
    """`learning_rate` is the peak, at the end of the warm-up. `momentum` and `nesterov` are SGD's, `betas` AdamW's.

    `orthogonal_rate` is the peak for weight matrices where the plan asks for `orthogonal_updates` (`utseg.training.muon`), and
    `orthogonal_decay` their weight decay, which is not part of the gradient; 0 is SGD for them, too. AdamW has neither.

    AdamW decays no biases, norms and position tables (parameters of fewer than two dimensions, and those called so).
    `pretrained_layer_decay`: in a run that starts from `--weights`, the rate of each layer of the pretrained part is this times that of the
    layer above it, so that what is near the image moves least. 1 is none.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Positive
    momentum: Fraction = 0.9
    nesterov: bool = True
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NotNegative = 1e-4
    orthogonal_rate: NotNegative = 0.0
    orthogonal_decay: NotNegative = 0.1
    pretrained_layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def can_be_orthogonal(self) -> bool:
        """Whether updates of weight matrices are made orthogonal where the plan asks for it."""
        return self.name == "sgd" and self.orthogonal_rate > 0


class ScheduleSettings(Settings):
    """Exponential warm-up of so many epochs, at most so large a share of the whole schedule, then polynomial decay to zero.

    `changes_every`: iteration, or epoch, whose iterations then have the rate of its first.
    """

    warmup_epochs: NotNegative = 5.0
    warmup_largest_share: Share = 0.05
    power: Positive = 0.9
    changes_every: Literal["iteration", "epoch"] = "iteration"


class Recipe(Settings):
    """All of how a network is trained.

    `gradient_clip_norm` 0 is no clipping. `amp` "auto" is bfloat16 where the processor computes in it, else float16, with scaled
    losses, on GPUs that compute in that, else "off", float32; the record of a run has which. `validate_every` is in epochs.
    `save_minutes` is the most that a killed run loses; the end and a signal are always saved.
    `weight_average` is the width of the running average of the weights that is validated and saved in place of the last ones, as a share
    of the training so far (`utseg.training.average`); 0 is none.
    """

    network_name: str
    optimizer: OptimizerSettings
    schedule: ScheduleSettings = ScheduleSettings()
    loss: LossSettings = LossSettings()
    gradient_clip_norm: NotNegative = 12.0
    amp: Amp = "auto"
    validate_every: Annotated[int, Field(ge=1)] = 1
    save_minutes: Positive = 10.0
    weight_average: Annotated[float, Field(ge=0, le=0.28)] = 0.0


def find_recipe(model: str) -> Recipe:
    """The recipe of that name, or that of the family of the network of that name. UsageError lists the names."""
    trainer = trainer_of(model)
    recipe = find("trainers", trainer)(model)
    if not isinstance(recipe, Recipe):
        raise UsageError(
            f"trainer {trainer}: expected a utseg.training.recipe.Recipe, got {type(recipe).__name__}"
        )
    return recipe


def trainer_of(model: str) -> str:
    """The name of what makes the recipe of a model: its own, or the family of the network. UsageError lists the names."""
    if model in names("trainers"):
        return model
    if model not in names("networks"):
        raise UsageError(
            f"no network is called {model!r}; there are: {', '.join(names('networks'))} (and trainers: {', '.join(names('trainers'))})"
        )
    return str(find("networks", model).family)


def apply_settings(recipe: Recipe, plan: Plan, settings: Mapping[str, Any]) -> tuple[Recipe, Plan]:
    """The recipe, and the plan for its network, with `--set` values on top, which share one namespace of dotted keys.

    An unknown key, a wrong value, or a key that shapes the slices already on disk, raises SettingError.
    """
    recipe_keys = [key for key in setting_keys(Recipe) if key != "network_name"]
    plan_keys = settable_keys(recipe.network_name)
    known = [*recipe_keys, *(key for key in plan_keys if key != "estimated_memory_gb")]
    for key in settings:
        if key.startswith(PREPROCESSING_PREFIX):
            raise SettingError(
                f"--set {key}: the slices on disk were made with it; give it to utseg_plan_and_preprocess instead"
            )
        if key not in known:
            raise unknown_key(key, [key for key in known if not key.startswith(PREPROCESSING_PREFIX)])
    if "loss.background_weight" in settings and has_regions(plan.preprocessing.labels):
        raise SettingError(
            "--set loss.background_weight: regions have no weight of the background; see loss.class_weights"
        )
    of_recipe = {key: value for key, value in settings.items() if key in recipe_keys}
    of_plan = {key: value for key, value in settings.items() if key not in recipe_keys}
    recipe = with_settings(recipe, of_recipe)
    plan = override_for(plan, recipe.network_name, of_plan)
    optimizer = recipe.optimizer
    if "orthogonal_updates" in settings and plan.orthogonal_updates and not optimizer.can_be_orthogonal:
        raise SettingError(
            "--set orthogonal_updates: only the optimizer sgd has them, with an optimizer.orthogonal_rate; "
            f"this recipe's is {optimizer.name} with {optimizer.orthogonal_rate:g}"
        )
    return _with_weights_of_all(recipe, plan.preprocessing.labels), plan


def _with_weights_of_all(recipe: Recipe, labels: Labels) -> Recipe:
    """The recipe with class weights, where it has any, of all labels, in the order of the classes."""
    given, known = recipe.loss.class_weights, list(structures(labels))
    if unknown := [name for name in given if name not in known]:
        raise SettingError(
            f"--set loss.class_weights: {unknown[0]!r} is no label; labels: {', '.join(known)} (the background's is loss.background_weight)"
        )
    weights = {name: given.get(name, 1.0) for name in known} if given else {}
    return recipe.model_copy(update={"loss": recipe.loss.model_copy(update={"class_weights": weights})})
