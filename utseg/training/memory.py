"""Whether a training step fits into the memory that there is, said with figures before the training starts."""

import logging
from dataclasses import replace

import torch

from utseg.errors import SettingError
from utseg.planning.memory import GB, USABLE_SHARE, StepKind, largest_batch, training_memory
from utseg.planning.plan import Plan
from utseg.planning.target import recorded_memory
from utseg.planning.task import planned_task
from utseg.training.recipe import Recipe
from utseg.training.step import training_precision

logger = logging.getLogger("utseg")


def step_kind(recipe: Recipe, device: torch.device) -> StepKind:
    """How a recipe trains on a device, as far as memory depends on it."""
    return StepKind(
        recipe.optimizer.name,
        averaged=recipe.weight_average > 0,
        precision=training_precision(recipe.amp, device),
        gpu=device.type == "cuda",
    )


def checked_memory(plan: Plan, recipe: Recipe, device: torch.device, *, processes: int, fit: bool) -> Plan:
    """The plan with what a step of its network needs. Where that is more than the device has, says so, or with `fit` takes a smaller batch.

    The memory is that of a GPU, else what the plan was made for. Each of several processes has its part of the batch. Raises SettingError
    where not even a batch of one fits.
    """
    kind = step_kind(recipe, device)
    has_gb = torch.cuda.get_device_properties(device).total_memory / GB if kind.gpu else plan.memory_gb
    task = replace(planned_task(plan), batch_size=-(-plan.batch_size // processes))
    largest = largest_batch(task, kind, has_gb)
    total, reason = recorded_memory(training_memory(task, kind), plan.network_name, kind)
    reasons = {**plan.reasons, "estimated_memory_gb": reason}
    plan = plan.model_copy(update={"estimated_memory_gb": total, "reasons": reasons})
    if largest == task.batch_size:
        return plan
    needs = (
        f"a training step of {plan.network_name} with batch {task.batch_size} needs {reason}; {USABLE_SHARE:.0%} of {has_gb:.3g} GB "
        f"{f'hold a batch of {largest}' if largest else 'do not hold a batch of 1'}"
    )
    if not fit:
        logger.warning("%s; --fit takes the largest batch that fits", needs)
        return plan
    if not largest:
        raise SettingError(f"--fit: {needs}; set a smaller patch_size, or network.base_channels")
    logger.info("%s, which --fit takes", needs)
    reasons |= {"batch_size": f"{largest * processes}: {needs}; the planner had {plan.batch_size}"}
    fitted = training_memory(replace(task, batch_size=largest), kind)
    total, reasons["estimated_memory_gb"] = recorded_memory(fitted, plan.network_name, kind)
    return plan.model_copy(
        update={"batch_size": largest * processes, "estimated_memory_gb": total, "reasons": reasons}
    )
