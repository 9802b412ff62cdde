"""UTNet's training step (or inference) against its straightforward einsum form, side by side in one process.

    python benchmarks/attention.py [--batch 4] [--size 256] [--repeats 7] [--inference] [--dropout 0.1]

Both networks have the same weights. Their steps alternate, so that a noisy machine hits both; the figure is the ratio of medians. A step is
forward, cross-entropy over all outputs, backward and SGD. Beside it: the largest difference of the two outputs in evaluation, and what each
keeps for backward (saved activations: storages that autograd holds, each counted once, parameters left out).
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utseg.networks import build_network, import_official_state_dict


def load_oracle() -> type[nn.Module]:
    """The plain form, from the tests."""
    path = Path(__file__).parents[1] / "tests" / "networks" / "oracle.py"
    spec = importlib.util.spec_from_file_location("oracle", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    oracle: type[nn.Module] = module.OracleUTNet
    return oracle


def loss_of(network: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    """Deeply supervised cross-entropy with the published weights."""
    weights = (1.0, 0.4, 0.2, 0.1)
    return sum(w * F.cross_entropy(y, target) for w, y in zip(weights, network(x), strict=True))


def training_step(network: nn.Module, x: Tensor, target: Tensor) -> Callable[[], None]:
    """A closure that trains one step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(network, x, target).backward()
        optimizer.step()

    return step


def inference_step(network: nn.Module, x: Tensor) -> Callable[[], None]:
    """A closure that predicts, as the pipeline does: without auxiliary heads where the network can leave them out."""
    predict = getattr(network, "main_logits", network)

    def step() -> None:
        with torch.inference_mode():
            predict(x)

    return step


def saved_mebibytes(network: nn.Module, x: Tensor, target: Tensor) -> float:
    """What autograd holds between forward and backward."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = loss_of(network, x, target)
    found = sum(storages.values()) / 2**20
    del loss
    return found


def alternate(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, taken in turns after one unmeasured turn."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--base-channels", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--inference", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    oracle = load_oracle()(1, 4, given.base_channels, dropout=given.dropout)
    ours = build_network(
        "UTNet",
        in_channels=1,
        num_classes=4,
        base_channels=given.base_channels,
        attention_dropout=given.dropout,
    )
    import_official_state_dict(ours, oracle.state_dict())
    x = torch.randn(given.batch, 1, given.size, given.size)
    target = torch.randint(0, 4, (given.batch, given.size, given.size))
    networks = {"plain": oracle, "utseg": ours}
    for network in networks.values():
        network.eval()
    with torch.inference_mode():
        difference = max(float((a - b).abs().max()) for a, b in zip(ours(x), oracle(x), strict=True))
    if given.inference:
        steps = {name: inference_step(network, x) for name, network in networks.items()}
    else:
        for network in networks.values():
            network.train()
        saved = {name: saved_mebibytes(network, x, target) for name, network in networks.items()}
        print(f"saved activations: {saved} MiB, ratio {saved['utseg'] / saved['plain']:.3f}")
        steps = {name: training_step(network, x, target) for name, network in networks.items()}
    seconds = alternate(steps, given.repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        print(f"{name:6} median {median[name]:.3f} s, {min(values):.3f} to {max(values):.3f}")
    kind = "inference" if given.inference else "training step"
    print(
        f"{kind}: {median['plain'] / median['utseg']:.2f} times as fast; largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
