"""Choose between the CPU and the GPU implementation of a layer. A dry run on tensors without values may choose either."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

_AS_ON_GPU = ContextVar("as_on_gpu", default=False)


def on_cpu(x: Tensor) -> bool:
    """Whether the formulation for CPUs is to run."""
    return x.device.type == "cpu" and not _AS_ON_GPU.get()


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Layers run as on a GPU, whatever device their tensors are on."""
    token = _AS_ON_GPU.set(True)
    try:
        yield
    finally:
        _AS_ON_GPU.reset(token)
