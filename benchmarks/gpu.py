"""Figures of a GPU, part by part, as `gpu.sh` asks for them; each part adds to `gpu.json` and `gpu.md` in `--out`.

    python benchmarks/gpu.py parity speed --device cuda --out FOLDER

parity: logits, loss and gradient of a training step from the same weights, without dropout, against the CPU's in float32; 16-bit logits.
speed: images/s of whole training steps against the U-Net's, memory planned and measured, windows/s of prediction.
compiled: UTNet's and the U-Net's step with --compile. folds: Dice of trained runs. On a CPU networks and images are small: a dry run.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utseg.augment.loader import Batch
from utseg.device import best_precision
from utseg.inference.windows import default_batch_size, predict_volumes
from utseg.networks import known_settings, network_names
from utseg.networks.losses import LossSettings, training_loss
from utseg.planning.memory import GB, training_memory
from utseg.planning.task import NetworkTask
from utseg.predict.accelerate import folded
from utseg.study.estimate import median_seconds
from utseg.training.memory import step_kind
from utseg.training.optimizer import make_optimizer
from utseg.training.recipe import find_recipe
from utseg.training.step import make_scaler, precision, train_step, training_precision

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from networks.small import SMALL

CPU = torch.device("cpu")
NO_DROPOUT = {"dropout": 0.0, "drop_path": 0.0}
LARGEST_DIFFERENCE = 1e-3
"""Of logits, loss and gradient in float32, relative: sums in another order, through up to a hundred layers, and no more."""
Row = dict[str, Any]


def make_task(name: str, device: torch.device, batch_size: int, **settings: Any) -> NetworkTask:
    """A network at its defaults on 256²; on a CPU a small one on 64²."""
    size = (64, 64) if device.type == "cpu" else (256, 256)
    small = SMALL.get(name, {}) if device.type == "cpu" else {}
    given = known_settings(name, {"aux_loss": True, "patch_size": size, **small, **settings})
    return NetworkTask(name, 1, 4, size, batch_size, given)


def make_batch(task: NetworkTask) -> Batch:
    """Noise with a disc in it."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((task.batch_size, 1, *task.patch_size), dtype=np.float32)
    y, x = np.mgrid[: task.patch_size[0], : task.patch_size[1]]
    disc = ((y - task.patch_size[0] / 2) ** 2 + (x - task.patch_size[1] / 2) ** 2 < 400).astype(np.uint8)
    label = np.repeat(disc[None], task.batch_size, 0)
    return Batch(image + 2 * label[:, None], label, ("noise",) * task.batch_size, 0)


def outcome(network: nn.Module, batch: Batch, device: torch.device) -> tuple[Tensor, float, Tensor]:
    """Logits, loss and gradient of a step in float32."""
    network = copy.deepcopy(network).to(device).train()
    outputs = network(torch.from_numpy(batch.image_BCHW).to(device))
    loss, _ = training_loss(outputs, torch.from_numpy(batch.label_BHW).to(device), LossSettings())
    loss.backward()
    gradient = torch.cat([parameter.grad.flatten().cpu() for parameter in network.parameters()])
    return outputs[0].detach().cpu(), loss.item(), gradient


def parity(device: torch.device) -> list[Row]:
    """Each network against the CPU."""
    torch.backends.cudnn.allow_tf32 = False  # which training leaves on
    rows = []
    for name in network_names():
        torch.manual_seed(0)
        task = make_task(name, device, 2, **NO_DROPOUT)
        network, batch = task.build(), make_batch(task)
        logits, loss, gradient = outcome(network, batch, CPU)
        their_logits, their_loss, their_gradient = outcome(network, batch, device)
        found = {
            "logits": ((their_logits - logits).abs().max() / logits.abs().max()).item(),
            "loss": abs(their_loss - loss) / loss,
            "gradient": ((their_gradient - gradient).norm() / gradient.norm()).item(),
        }
        row: Row = {"network": name, **found, "within": max(found.values()) <= LARGEST_DIFFERENCE}
        network.to(device).eval()
        image_BCHW = torch.from_numpy(batch.image_BCHW).to(device)
        with torch.inference_mode():
            exact = network.main_logits(image_BCHW)
            for amp in ("bfloat16", "float16"):
                with precision(amp, device):
                    rounded = network.main_logits(image_BCHW).float()
                row[f"{amp} logits"] = ((rounded - exact).abs().max() / exact.abs().max()).item()
                row[f"{amp} other labels"] = (rounded.argmax(1) != exact.argmax(1)).float().mean().item()
        rows.append(row)
    torch.backends.cudnn.allow_tf32 = True
    return rows


def step_of(
    task: NetworkTask, amp: str, device: torch.device, *, compiled: bool = False
) -> Callable[[], Any]:
    """A training step of the network by its recipe."""
    torch.manual_seed(0)
    recipe = find_recipe(task.network_name).model_copy(update={"amp": amp})
    network, batch = task.build().to(device).train(), make_batch(task)
    if compiled:
        network.compile()
    optimizer, scaler = make_optimizer(network, recipe.optimizer, pretrained=False), make_scaler(amp, device)
    return lambda: train_step(network, optimizer, batch, recipe, device, scaler=scaler)


def speed(device: torch.device) -> list[Row]:
    """Each network by its recipe; UTNet and the U-Net in every precision."""
    on_gpu, rows = device.type == "cuda", []
    turns = 20 if on_gpu else 2
    precisions = [(name, "auto") for name in network_names()]
    precisions += [(name, amp) for name in ("UNet", "UTNet") for amp in ("off", "bfloat16", "float16")]
    for name, amp in precisions:
        task = make_task(name, device, 16 if on_gpu else 2)
        recipe = find_recipe(name).model_copy(update={"amp": amp})
        planned_gb = training_memory(task, step_kind(recipe, device)).total_gb
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        step_s = median_seconds(step_of(task, amp, device), device, turns=turns, uncounted=3)
        measured_gb = torch.cuda.max_memory_allocated(device) / GB if on_gpu else None
        row: Row = {
            "network": name,
            "precision": training_precision(amp, device),
            "images/s": task.batch_size / step_s,
            "planned GB": planned_gb,
            "measured GB": measured_gb,
            "measured / planned": measured_gb / planned_gb if measured_gb else None,
        }
        rows.append(row | {"windows/s": predicted_windows(task, device, turns)})
    plain = next(row["images/s"] for row in rows if row["network"] == "UNet")
    return [row | {"of the U-Net": row["images/s"] / plain} for row in rows]


def predicted_windows(task: NetworkTask, device: torch.device, turns: int) -> float:
    """Windows a second of the prediction of one volume in the precision that it takes, with all that belongs to it."""
    network = folded(task.build().to(device).eval())
    image_CZYX = np.zeros((1, 16 if device.type == "cuda" else 2, *task.patch_size), np.float32)
    batch_size = default_batch_size(task.patch_size, device)
    sizes = {"patch_size": task.patch_size, "batch_size": batch_size, "num_classes": 4, "step_size": 0.5}
    settings = {**sizes, "device": device, "precision": best_precision(device)}
    return image_CZYX.shape[1] / median_seconds(
        lambda: list(predict_volumes([network], [image_CZYX], **settings)),
        device,
        turns=turns // 2,
        uncounted=3,
    )


def compiled(device: torch.device) -> list[Row]:
    """The step with --compile."""
    rows = []
    for name in ("UNet", "UTNet"):
        task = make_task(name, device, 16 if device.type == "cuda" else 2)
        step = step_of(task, "auto", device, compiled=True)
        began = time.perf_counter()
        step()
        first_s = time.perf_counter() - began
        images_s = task.batch_size / median_seconds(step, device, turns=10, uncounted=3)
        rows.append({"network": name, "first step, s": first_s, "images/s": images_s})
    return rows


def folds(runs: Path) -> list[Row]:
    """Dice of each run's held-back subjects at native resolution, and how fast it trained. `runs`: results/DATASET/PLAN_2d/MODEL."""
    rows, dataset = [], runs.parts[-3]
    for folder in sorted(runs.iterdir()):
        summary = json.loads((folder / "validation" / "summary.json").read_text())
        log = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
        dice = {name: entry["dice"]["mean"] for name, entry in summary["all"]["labels"].items()}
        spent_s = sum(line["seconds"] - line["validation_seconds"] for line in log)
        speed = sum(line["slices"] for line in log) / spent_s
        wait = sum(line["data_wait_seconds"] for line in log) / spent_s
        steps = {"iterations": log[-1]["iteration"], "skipped": sum(line["skipped_steps"] for line in log)}
        rows.append(
            {
                "dataset": dataset,
                "fold": folder.name,
                **dice,
                **steps,
                "images/s": speed,
                "share waited for data": wait,
            }
        )
    return rows


def table(rows: list[Row]) -> str:
    """As Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [
        [
            f"{x:.3g}" if isinstance(x, float) else "" if x is None else str(x)
            for x in (row.get(c) for c in columns)
        ]
        for row in rows
    ]
    lines = [" | ".join(line) for line in (columns, ["---"] * len(columns), *cells)]
    return "".join(f"| {line} |\n" for line in lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=("parity", "speed", "compiled", "folds"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--runs", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if not network_names():
        sys.exit("no network is there to be measured: utseg is not installed (pip install --no-deps .)")
    device, file = torch.device(given.device), given.out / "gpu.json"
    figures = json.loads(file.read_text()) if file.is_file() else {}
    on_device = {"parity": parity, "speed": speed, "compiled": compiled}
    for part in given.parts:
        began = time.perf_counter()
        figures[part] = folds(given.runs) if part == "folds" else on_device[part](device)
        figures.setdefault("seconds", {})[part] = round(time.perf_counter() - began, 1)
        file.write_text(json.dumps(figures, indent=2) + "\n")
        tables = [f"## {key}\n\n{table(rows)}" for key, rows in figures.items() if key != "seconds"]
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, a dry run"
        head = f"# {kind}, PyTorch {torch.__version__}\n\nSeconds: {figures['seconds']}\n"
        (given.out / "gpu.md").write_text("\n".join([head, *tables]))
    if "parity" in given.parts and not all(row["within"] for row in figures["parity"]):
        sys.exit(
            f"parity: a network differs from the CPU by more than {LARGEST_DIFFERENCE:g}; see {given.out / 'gpu.md'}"
        )


if __name__ == "__main__":
    main()
