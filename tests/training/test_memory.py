"""Whether a step fits: said with figures, and with `fit` the largest batch that does is taken."""

import logging
from dataclasses import replace

import pytest
import torch
from plans import make_plan

from trainers.transformer import recipe as transformer
from trainers.utnet import recipe as convolutional
from utseg.errors import SettingError
from utseg.planning.memory import USABLE_SHARE, StepKind, training_memory
from utseg.planning.task import for_network, planned_task
from utseg.training.memory import checked_memory, step_kind

CPU = torch.device("cpu")
RECIPE = convolutional("UNet").model_copy(update={"amp": "off"})
# Made for what a batch of 5 takes, with a batch of 8.
PLAN = for_network(make_plan(batch_size=8), "UNet")
FIVE_GB = training_memory(replace(planned_task(PLAN), batch_size=5), StepKind()).total_gb / USABLE_SHARE
TOO_LARGE = PLAN.model_copy(update={"memory_gb": FIVE_GB})


def test_a_recipe_says_how_a_step_runs():
    assert step_kind(RECIPE, CPU) == StepKind("sgd")
    averaged = transformer("TransUNet").model_copy(update={"amp": "bfloat16", "weight_average": 0.1})
    assert step_kind(averaged, torch.device("cuda")) == StepKind(
        "adamw", averaged=True, precision="bfloat16", gpu=True
    )


def test_a_batch_that_fits_is_only_counted(caplog):
    checked = checked_memory(PLAN, RECIPE, CPU, processes=1, fit=True)
    total = training_memory(planned_task(PLAN), StepKind()).total_gb
    assert (checked.batch_size, checked.estimated_memory_gb) == (8, round(total, 3))
    assert "UNet's training step, sgd in float32" in checked.reasons["estimated_memory_gb"]
    assert not caplog.records


def test_a_batch_that_does_not_fit_is_said_with_figures(caplog):
    assert checked_memory(TOO_LARGE, RECIPE, CPU, processes=1, fit=False).batch_size == 8
    (record,) = caplog.records
    for words in ("UNet with batch 8 needs", "activations", "hold a batch of 5", "--fit"):
        assert words in record.message


@pytest.mark.parametrize(("processes", "batch"), [(1, 5), (2, 8)])
def test_fit_takes_the_largest_batch(caplog, processes: int, batch: int):
    with caplog.at_level(logging.WARNING):
        fitted = checked_memory(TOO_LARGE, RECIPE, CPU, processes=processes, fit=True)
    assert fitted.batch_size == batch and not caplog.records
    if batch != 8:
        assert fitted.reasons["batch_size"].startswith("5: ") and "had 8" in fitted.reasons["batch_size"]


def test_too_little_memory_for_any_batch_is_refused():
    with pytest.raises(SettingError, match="do not hold a batch of 1; set a smaller patch_size"):
        checked_memory(PLAN.model_copy(update={"memory_gb": 1e-6}), RECIPE, CPU, processes=1, fit=True)
