"""Trains nnU-Net's network by nnU-Net itself and by `-m nnUNetTrainer`, from the same weights on the same batches, and compares the losses.

    PYTHON benchmarks/nnunet_parity.py [--planner ExperimentPlanner] [--iterations 50] [--side 64] [--ignore] [--float32]

PYTHON has utseg and nnunetv2 2.8.1. nnU-Net plans a small made dataset; its trainer makes network, optimizer, loss and smaller targets.
`--planner nnUNetPlannerResEncM` is the residual encoder; `--ignore` leaves a part of each slice without annotation. One thread. All is
computed in float64, the losses too, which both have in float32: what is compared is the method. With --float32 both are as they are, and
nnU-Net is compared with itself, too, its weights in another order of memory: how far rounding alone leads apart.
"""

import argparse
import copy
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.nnunet import recipe as make_recipe
from utseg.augment.loader import Batch
from utseg.labels import IGNORED_CLASS
from utseg.networks import build_network
from utseg.networks.network import SegmentationNetwork
from utseg.training.optimizer import make_optimizer, set_learning_rate
from utseg.training.schedule import Schedule
from utseg.training.step import train_step

CASES, SLICES, EPOCHS, IGNORE = 8, 6, 5, 4
LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
NAME = "Dataset001_Made"


def draw_slice(rng: np.random.Generator, side: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A disc in a ring with a disc beside it, in noise; the last is left out of half of the slices."""
    yx = np.indices((side, side)) - (rng.uniform(0.4, 0.6, 2) * side)[:, None, None]
    distance, label = np.hypot(*yx), np.zeros((side, side), np.uint8)
    if rng.random() < 0.5:
        label[np.hypot(yx[0], yx[1] + 0.22 * side) < 0.14 * side] = 3
    label[distance < 0.16 * side] = 2
    label[distance < 0.1 * side] = 1
    image = np.array([0.0, 1.0, 0.3, 0.8])[label] + rng.normal(0, 0.4, label.shape)
    return image.astype(np.float32), label


def make_raw(root: Path, side: int, ignore: bool) -> dict[str, Any]:
    """The dataset in nnU-Net's layout; its dataset.json."""
    labels = LABELS | ({"ignore": IGNORE} if ignore else {})
    about = {"channel_names": {"0": "MR"}, "labels": labels, "numTraining": CASES, "file_ending": ".nii.gz"}
    rng = np.random.default_rng(0)
    for case in range(CASES):
        drawn = zip(*(draw_slice(rng, side) for _ in range(SLICES)), strict=True)
        for folder, suffix, slices in zip(("imagesTr", "labelsTr"), ("_0000", ""), drawn, strict=True):
            image = SimpleITK.GetImageFromArray(np.stack(slices))
            image.SetSpacing((1.5, 1.5, 8.0))
            (root / folder).mkdir(parents=True, exist_ok=True)
            SimpleITK.WriteImage(image, root / folder / f"case_{case}{suffix}.nii.gz")
    (root / "dataset.json").write_text(json.dumps(about))
    return about


def make_peer(home: Path, about: dict[str, Any], planner: str) -> Any:
    """nnU-Net's trainer of its own 2-D plan, with all of `initialize` but what reads preprocessed cases."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    extract_fingerprints([1], num_processes=1)
    plan_experiments([1], planner)
    (file,) = (home / "preprocessed" / NAME).glob("*Plans.json")
    plans = json.loads(file.read_text()) | {"continue_training": False}
    trainer = nnUNetTrainer(plans, "2d", 0, about, torch.device("cpu"))
    trainer._set_batch_size_and_oversample()
    trainer.num_epochs = EPOCHS
    trainer.network = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, len(LABELS), True
    )
    trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
    trainer.loss = trainer._build_loss()
    return trainer


def paired(ours: SegmentationNetwork, theirs: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """Each parameter of ours with its counterpart; only their head of the coarsest decoder stage, which has no loss, has none."""
    yield from zip(
        [*(ours.stem.parameters() if ours.stem else ()), *ours.encoder.parameters()],
        theirs.encoder.parameters(),
        strict=True,
    )
    decoder = theirs.decoder
    stages = zip(ours.decoder, decoder.transpconvs[::-1], decoder.stages[::-1], strict=True)
    for stage, up, convs in stages:
        yield from zip(stage.parameters(), [*up.parameters(), *convs.parameters()], strict=True)
    heads = list(decoder.seg_layers)[::-1]
    assert len(heads) == len(ours.heads) + 1
    for head, other in zip(ours.heads, heads[:-1], strict=True):
        yield from zip(head.parameters(), other.parameters(), strict=True)


def draw_batches(
    count: int, size: int, side: int, ignore: bool, dtype: type[np.floating[Any]]
) -> Iterator[Batch]:
    """Batches of so many normalised slices, in which the annotation of the upper rows is left out where asked."""
    rng = np.random.default_rng(1)
    for iteration in range(count):
        images, labels = map(np.stack, zip(*(draw_slice(rng, side) for _ in range(size)), strict=True))
        if ignore:
            labels[:, : side // 3] = IGNORED_CLASS
        images = ((images - images.mean()) / images.std())[:, None].astype(dtype)
        yield Batch(images, labels, ("",) * size, iteration)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--planner", default="ExperimentPlanner")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--ignore", action="store_true")
    parser.add_argument("--float32", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for key in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{key}"] = str(home / key)
        about = make_raw(home / "raw" / NAME, arguments.side, arguments.ignore)
        trainer = make_peer(home, about, arguments.planner)
    configuration = trainer.configuration_manager
    assert tuple(configuration.patch_size) == (arguments.side,) * 2, "one slice is one patch"
    batches = list(
        draw_batches(
            arguments.iterations,
            configuration.batch_size,
            arguments.side,
            arguments.ignore,
            np.float32 if arguments.float32 else np.float64,
        )
    )
    if not arguments.float32:
        trainer.network.double()
        compute_losses_in_double()
    start = copy.deepcopy(trainer.network.state_dict())
    ours = train_ours(trainer, batches)
    theirs = train_theirs(trainer, batches)
    print(
        "iteration: utseg and nnU-Net",
        *(f"{i}: {ours[i]:.6f} {theirs[i]:.6f}" for i in shown(ours)),
        sep="\n",
    )
    print_differences("losses", ours, theirs)
    if arguments.float32:
        trainer.network.load_state_dict(start)
        trainer.network.to(memory_format=torch.channels_last)
        trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()
        print_differences("nnU-Net with itself", theirs, train_theirs(trainer, batches))


def compute_losses_in_double() -> None:
    """Puts float64 where the code of either loss says float32."""
    from nnunetv2.training.loss import dice

    class Double:
        float32 = torch.float64

        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

    dice.torch = Double()
    Tensor.float = Tensor.double


def shown(losses: list[float]) -> list[int]:
    """The first iteration, the last, and some between."""
    return [*range(0, len(losses), max(1, len(losses) // EPOCHS)), len(losses) - 1]


def print_differences(what: str, losses: list[float], others: list[float]) -> None:
    """The largest difference in the first, the first ten, …, all iterations."""
    found = np.abs(np.subtract(losses, others))
    print(f"{what}: largest difference", *(f"{n}: {found[:n].max():.1e}" for n in (1, 10, 25, len(found))))


def train_ours(trainer: Any, batches: list[Batch]) -> list[float]:
    """The losses of utseg from the weights that nnU-Net's network has now."""
    configuration, recipe = trainer.configuration_manager, make_recipe("").model_copy(update={"amp": "off"})
    network: Any = build_network(
        "nnUNet",
        in_channels=1,
        num_classes=len(LABELS),
        architecture="residual" if "Residual" in configuration.network_arch_class_name else "plain",
        patch_size=tuple(configuration.patch_size),
        spacing_yx_mm=tuple(configuration.spacing),
        aux_loss=True,
    )
    network.upsamples_auxiliary = False
    image_BCHW = torch.from_numpy(batches[0].image_BCHW)
    network.to(image_BCHW.dtype)
    with torch.no_grad():
        for own, other in paired(network, trainer.network):
            assert own.shape == other.shape
            own.copy_(other)
        outputs = list(zip(network(image_BCHW), trainer.network(image_BCHW), strict=False))
    print(f"batch {tuple(image_BCHW.shape)}, {sum(p.numel() for p in network.parameters())} parameters")
    print("logits up to", *(f"{ours.abs().max():.2g}" for ours, _ in outputs))
    print("logits: largest difference", *(f"{(ours - theirs).abs().max():.1e}" for ours, theirs in outputs))
    optimizer = make_optimizer(network, recipe.optimizer, pretrained=False)
    per_epoch, losses = len(batches) // EPOCHS, []
    schedule = Schedule(EPOCHS * per_epoch, 0.0, held=per_epoch)
    for batch in batches[: EPOCHS * per_epoch]:
        peak, power = recipe.optimizer.learning_rate, recipe.schedule.power
        set_learning_rate(optimizer, schedule.learning_rate(batch.iteration, peak, power))
        losses.append(train_step(network, optimizer, batch, recipe, torch.device("cpu"))[0])
    return losses


def train_theirs(trainer: Any, batches: list[Batch]) -> list[float]:
    """The losses of nnU-Net, plus the 1 that it does not add to the negative Dice."""
    from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform

    smaller = DownsampleSegForDSTransform(trainer._get_deep_supervision_scales())
    per_epoch, losses = len(batches) // EPOCHS, []
    for batch in batches[: EPOCHS * per_epoch]:
        if batch.iteration % per_epoch == 0:
            trainer.lr_scheduler.step(batch.iteration // per_epoch)
        label = np.where(batch.label_BHW == IGNORED_CLASS, IGNORE, batch.label_BHW).astype(np.int16)
        targets = smaller._apply_to_segmentation(torch.from_numpy(label))
        data = {"data": torch.from_numpy(batch.image_BCHW), "target": [target[:, None] for target in targets]}
        losses.append(float(trainer.train_step(data)["loss"]) + 1)
    return losses


if __name__ == "__main__":
    main()
