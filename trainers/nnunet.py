"""The recipe of nnU-Net's own trainer, for its network: `-m nnUNetTrainer` trains `nnUNet` by it.

Source: `nnUNetTrainer` of nnU-Net 2.8.1 (Isensee et al., Nature Methods 2021), whose losses `benchmarks/nnunet_parity.py` compares with:
SGD with Nesterov momentum .99, rate .01 that falls with exponent .9 once an epoch, no warm-up, clipping at 12; cross-entropy of all pixels
alike plus soft Dice of the batch; outputs weighted 1, ½, ¼, … to the sum 1, each compared at its own size. Theirs is lower by 1, which
they do not add to the Dice. What a plan says (patch, batch, augmentation, first biases) is the plan's.
"""

from utseg.networks.losses import LossSettings
from utseg.training.recipe import OptimizerSettings, Recipe, ScheduleSettings


def recipe(name: str) -> Recipe:
    """The recipe, of one network whatever it is asked for by."""
    return Recipe(
        network_name="nnUNet",
        optimizer=OptimizerSettings(learning_rate=0.01, momentum=0.99, weight_decay=3e-5),
        schedule=ScheduleSettings(warmup_epochs=0, changes_every="epoch"),
        loss=LossSettings(
            background_weight=1.0,
            deep_supervision_weights=tuple(0.5**stage for stage in range(7)),
            normalised_weights=True,
            auxiliary_size="own",
            dice_smooth=1e-5,
        ),
    )
