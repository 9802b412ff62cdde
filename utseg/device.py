"""Which processor to compute on, and in which precision. torch is imported when this is asked, not before."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from utseg.errors import UsageError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

DEVICES = "auto, cpu, cuda, cuda:N or mps"
Precision = Literal["float32", "bfloat16", "float16"]
TO_PREDICT_IN: tuple[Precision, ...] = ("float32", "bfloat16")
"""What `utseg_predict` offers: float16, whose range is small, needs the scaling that training has."""


def resolve_device(name: str) -> "torch.device":
    """`auto` is CUDA where it is there, else MPS (Apple's GPUs), else CPU. Raises UsageError for a device that is not there."""
    import torch

    has_mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: unknown; expected {DEVICES}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: {torch.cuda.device_count()} CUDA devices are there; use auto or cpu"
        )
    if device.type == "mps" and not (has_mps and not device.index):
        raise UsageError(
            f"--device {name}: PyTorch finds {'one Apple GPU only' if has_mps else 'no Apple GPU'} here; use auto or cpu"
        )
    if device.type not in {"cpu", "cuda", "mps"}:
        raise UsageError(f"--device {name}: not supported; expected {DEVICES}")
    return device


def to_device(array: "NDArray[Any]", device: "torch.device") -> "torch.Tensor":
    """The array as a tensor on the device. A GPU copies it from page-locked memory while the CPU goes on."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=device.type == "cuda")


def device_name(device: "torch.device") -> str:
    """The kind of a device, and the model of a GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


GPU_CAPABILITY = {"bfloat16": (8, 0), "float16": (7, 0)}  # since Ampere, and since Volta
CPU_CAPABILITIES = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}


def has_instructions(precision: Precision, device: "torch.device") -> bool:
    """Whether the device itself computes in the precision. Elsewhere it is emulated, slower than float32."""
    import torch

    if precision == "float32":
        return True
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= GPU_CAPABILITY[precision]
    if device.type == "mps":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name) for name in CPU_CAPABILITIES[precision])


def best_precision(device: "torch.device") -> Precision:
    """bfloat16 where the device has instructions for it, else float32.

    On a CPU with AVX512-BF16 a step of UTNet or the U-Net was measured to take 1.3 to 1.5 times less than in float32.
    """
    return "bfloat16" if has_instructions("bfloat16", device) else "float32"


def chosen_precision(asked: Precision | None, device: "torch.device") -> Precision:
    """The precision that is asked for, else the best. Raises UsageError for another than float32 on Apple's GPUs."""
    precision = asked or best_precision(device)
    if device.type == "mps" and precision != "float32":
        raise UsageError(
            f"{precision} on mps: networks compute in float32 there; say --precision float32 (utseg_train: --set amp=off), or leave it out"
        )
    return precision


def precision_to_predict_in(asked: Precision | None, device: "torch.device") -> Precision:
    """As `chosen_precision`; UsageError also for what nothing is predicted in."""
    if asked not in (None, *TO_PREDICT_IN):
        raise UsageError(
            f"precision {asked!r}: expected {' or '.join(TO_PREDICT_IN)}, or None for the best that the device has"
        )
    return chosen_precision(asked, device)


def computing_in(precision: Precision, device: "torch.device") -> AbstractContextManager[object]:
    """The context for a network to run in. That of float32 changes nothing: one around it stays."""
    import torch

    return nullcontext() if precision == "float32" else torch.autocast(device.type, getattr(torch, precision))
