"""Time and memory of one attention layer against image size, beside full self-attention: a training step from 64² to 1024² pixels.

    python benchmarks/linearity.py [--channels 64] [--heads 4] [--reduce-size 8] [--plot benchmarks/linearity.png]

Each point is a process of its own: the median of three forward and backward passes, and by how much the process's largest resident set
grew over that with the input, its gradient and the weights. `matrix` is softmax(q·kᵀ)·v over all pixels, written out; `fused` is the
same through torch's scaled_dot_product_attention, which keeps no matrix but computes all of it. Points that would take more than two
minutes or 8 GB are left out. Exponents are slopes of least squares through log(time) over log(pixels), from 256² on where there are
such points.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIZES = (64, 96, 128, 192, 256, 384, 512, 768, 1024)
KINDS = {
    "efficient": "efficient attention",
    "fused": "full attention, fused",
    "matrix": "full attention, matrix",
}
LIMIT_S = 120.0
LIMIT_MB = 8192.0


def layer(kind: str, channels: int, heads: int, reduce_size: int) -> Callable[..., object]:
    """The attention layer of a kind: (1, C, H, W) → the same."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    from utseg.networks.layers.attention import EfficientAttention
    from utseg.networks.layers.blocks import DepthwiseSeparable

    if kind == "efficient":
        return EfficientAttention(
            channels,
            heads,
            reduce_size=reduce_size,
            projection="interp",
            relative_position="2d-bias",
            dropout=0.0,
        )

    def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.softmax(q @ k.mT * q.shape[-1] ** -0.5, -1) @ v

    class Full(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_qkv = DepthwiseSeparable(channels, 3 * channels)
            self.to_out = DepthwiseSeparable(channels, channels)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = self.to_qkv(x).flatten(2).unflatten(1, (3, heads, -1)).transpose(-1, -2).unbind(1)
            y = F.scaled_dot_product_attention(q, k, v) if kind == "fused" else written_out(q, k, v)
            return self.to_out(y.transpose(-1, -2).reshape(x.shape))

    return Full()


def measure(kind: str, size: int, given: argparse.Namespace) -> dict[str, float]:
    """Seconds of a pass and megabytes that it takes, in this process."""
    import torch

    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    network = layer(kind, given.channels, given.heads, given.reduce_size)
    network(torch.randn(1, given.channels, 16, 16)).sum().backward()  # libraries load what they need
    x = torch.randn(1, given.channels, size, size).contiguous(memory_format=torch.channels_last)
    x.requires_grad_(True)
    x.grad = torch.zeros_like(x)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        network(x).mean().backward()
        seconds.append(time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": statistics.median(seconds), "megabytes": (after - before) / 1024}


def measure_apart(kind: str, size: int, words: list[str]) -> dict[str, float]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one", kind, str(size), *words]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def exponent(points: dict[int, dict[str, float]], key: str) -> float:
    """Slope of log(value) over log(pixels)."""
    large = {size: point for size, point in points.items() if size >= 256}
    chosen = large if len(large) >= 3 else points
    pixels = np.log([size**2 for size in chosen])
    return float(np.polyfit(pixels, np.log([max(point[key], 0.1) for point in chosen.values()]), 1)[0])


def plot(results: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Two log-log panels, time and memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    for axis, key, label in zip(
        axes, ("seconds", "megabytes"), ("seconds a training step", "MB above the input"), strict=True
    ):
        for kind, points in results.items():
            sizes = list(points)
            values = [points[size][key] for size in sizes]
            axis.plot(sizes, values, "o-", label=f"{KINDS[kind]}: pixels^{exponent(points, key):.2f}")
        axis.set(xscale="log", yscale="log", xlabel="image side in pixels", ylabel=label)
        axis.set_xticks(SIZES, [str(size) for size in SIZES], fontsize=8)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--reduce-size", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SIZE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one[0], int(given.one[1]), given)))
        return
    words = [
        f"--{name}={getattr(given, name.replace('-', '_'))}"
        for name in ("channels", "heads", "reduce-size", "threads")
    ]
    results: dict[str, dict[int, dict[str, float]]] = {kind: {} for kind in KINDS}
    for kind, points in results.items():
        for size in SIZES:
            if points:
                last_size, last = next(reversed(points.items()))
                growth = (size / last_size) ** (2 if kind == "efficient" else 4)
                matrix_mb = 3 * given.heads * size**4 * 4 / 2**20 if kind == "matrix" else 0.0
                if 3 * last["seconds"] * growth > LIMIT_S or matrix_mb > LIMIT_MB:
                    break
            points[size] = measure_apart(kind, size, words)
            print(
                f"{kind:10} {size:5}²  {points[size]['seconds']:8.3f} s {points[size]['megabytes']:9.1f} MB",
                flush=True,
            )
        print(
            f"{kind:10} time ~ pixels^{exponent(points, 'seconds'):.2f}, memory ~ pixels^{exponent(points, 'megabytes'):.2f}"
        )
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
