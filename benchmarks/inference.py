"""Ways to run a network on a CPU, in turns: what prediction does (folded, channels-last, one window at a time) against what else there is.

    python benchmarks/inference.py [--network UTNet] [--size 256] [--rounds 5] [--only eager onnxruntime …]

Reported for each: seconds before the first answer (export, compilation), the memory that this took, the largest difference of the logits
from eager's, the share of pixels whose label differs, and the median of the seconds a window, and of the CPU
seconds, which say more on a busy machine (with OMP_NUM_THREADS=1). Weights are random.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from utseg.networks import build_network
from utseg.predict.accelerate import folded

WINDOWS = 8
Way = Callable[[Tensor], Tensor]


class MainLogits(nn.Module):
    """What prediction asks a network for, as a module."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.network.main_logits(x_BCHW)


def one_by_one(answer: Way) -> Way:
    return lambda x_BCHW: torch.cat([answer(x_1CHW) for x_1CHW in x_BCHW.split(1)])


def two_at_once(answer: Way) -> Way:
    """Two windows at a time, each in a thread of its own that has one core."""
    pool = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))

    def in_thread(x_1CHW: Tensor) -> Tensor:
        with torch.inference_mode():
            return answer(x_1CHW)

    return lambda x_BCHW: torch.cat(list(pool.map(in_thread, x_BCHW.split(1))))


def in_bfloat16(answer: Way) -> Way:
    def run(x_BCHW: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return answer(x_BCHW).float()

    return run


def exported(network: nn.Module, example: Tensor, threads: int) -> Way:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        options = {"dynamo": True, "external_data": False, "verbose": False}
        torch.onnx.export(MainLogits(network).eval(), (example,), path, **options)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x_BCHW: torch.from_numpy(session.run(None, {name: x_BCHW.numpy()})[0])


def ways(network: nn.Module, example: Tensor) -> dict[str, Callable[[], Way]]:
    """Name → what makes it ready."""
    plain = network.main_logits
    return {
        "eager": lambda: one_by_one(plain),
        "eager, pairs": lambda: lambda x: torch.cat([plain(pair) for pair in x.split(2)]),
        "eager, two threads": lambda: two_at_once(plain),
        "folded": lambda: one_by_one(folded(network).main_logits),
        "bfloat16": lambda: one_by_one(in_bfloat16(plain)),
        "bfloat16, two threads": lambda: two_at_once(in_bfloat16(plain)),
        "compiled": lambda: one_by_one(torch.compile(MainLogits(network))),
        "onnxruntime": lambda: one_by_one(exported(network, example, torch.get_num_threads())),
        "onnxruntime, two threads": lambda: two_at_once(exported(network, example, 1)),
    }


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="UTNet")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", default=())
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = build_network(arguments.network, in_channels=1, num_classes=4).eval().requires_grad_(False)
    x_BCHW = torch.randn(WINDOWS, 1, arguments.size, arguments.size)
    reference = one_by_one(network.main_logits)(x_BCHW)
    ready: dict[str, Way] = {}
    for name, make in ways(network, x_BCHW[:1]).items():
        if arguments.only and name not in arguments.only:
            continue
        before, start = memory_mb(), time.perf_counter()
        with torch.inference_mode(mode=False):
            ready[name] = make()
        answer = ready[name](x_BCHW)
        took = time.perf_counter() - start
        difference = (answer - reference).abs().max().item()
        labels = (answer.argmax(1) != reference.argmax(1)).float().mean().item()
        print(
            f"{name}: ready after {took:.1f} s, {memory_mb() - before:+.0f} MB; largest difference {difference:.1e} "
            f"of {reference.abs().max():.1e}; other labels {labels:.2%}",
            flush=True,
        )
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(arguments.rounds):
        for name, run in ready.items():
            start, cpu = time.perf_counter(), time.process_time()
            run(x_BCHW)
            seconds[name].append((time.perf_counter() - start) / WINDOWS)
            cpu_seconds[name].append((time.process_time() - cpu) / WINDOWS)
    for name, each in seconds.items():
        share = statistics.median(each) / statistics.median(seconds[next(iter(seconds))])
        spread = f"{min(each):.3f} … {max(each):.3f}"
        cpu = statistics.median(cpu_seconds[name])
        print(
            f"{name}: {statistics.median(each):.3f} s a window ({spread}), {share:.2f} of the first; {cpu:.3f} CPU seconds"
        )


if __name__ == "__main__":
    main()
