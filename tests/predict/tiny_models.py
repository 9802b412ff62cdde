"""A tiny model folder with random weights, and networks whose answer is known without training."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import plans
import torch
from torch import Tensor, nn

from utseg.planning.plan import Plan
from utseg.planning.task import for_network, planned_task
from utseg.predict.model import LoadedModel
from utseg.training.record import RunRecord, write_run, write_weights

make_plan = partial(plans.make_plan, channel_names=("cine-MRI",))


def make_record(plan: Plan, model: str = "UTNet", selection: str = "fold0") -> RunRecord:
    return RunRecord(
        model=model,
        plan=for_network(plan, model),
        recipe={},
        selection=selection,
        training_cases=(),
        validation_cases=(),
        epochs=1,
        iterations_per_epoch=1,
        seed=0,
        device="cpu",
        data_sha256="0" * 64,
        versions={},
        git_revision="",
        started="2026-01-01T00:00:00",
    )


def make_run_folder(
    dataset: Path, model: str = "UTNet", fold: str = "fold0", seed: int = 0, **changes: Any
) -> Path:
    """Writes a run folder below `dataset` (`results/NAME`): run.json and random weights."""
    plan = make_plan(**changes)
    record = make_record(plan, model, fold)
    folder = dataset / plan.folder_name / model / fold
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    network = planned_task(record.plan).build()
    write_run(record, folder)
    write_weights(network.state_dict(), folder)
    return folder


class BandNetwork(nn.Module):
    """Each pixel's class is the band of z-scores that it falls into: below −.5, to .5, to 1.5, above. `sharpness` scales the logits."""

    edges = (-0.5, 0.5, 1.5)

    def __init__(self, sharpness: float = 50.0) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(sharpness))

    def main_logits(self, x: Tensor) -> Tensor:
        x = x[:, :1]
        centres = (-1.0, 0.0, 1.0, 2.0)
        return torch.cat([-self.sharpness * (x - centre) ** 2 for centre in centres], 1)


def bands(image_ZYX: np.ndarray) -> np.ndarray:
    """What BandNetwork answers, by hand."""
    z = (image_ZYX - image_ZYX.mean()) / image_ZYX.std()
    return np.digitize(z, BandNetwork.edges).astype(np.uint8)


def band_model(sharpness: float = 50.0, name: str = "bands", **changes: Any) -> LoadedModel:
    plan = make_plan(**changes)
    network = BandNetwork(sharpness).requires_grad_(False).eval()
    return LoadedModel(
        network,
        make_record(plan),
        Path("results/Tiny") / plan.folder_name / "UTNet" / name,
        f"{name}{sharpness}",
    )
