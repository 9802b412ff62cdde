"""Which processor to compute on. torch is imported when this is asked, not before."""

from typing import TYPE_CHECKING

from utseg.errors import UsageError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """`auto` is CUDA where it is there, else CPU. Raises UsageError for a device that is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name}: unknown; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name}: {torch.cuda.device_count()} CUDA devices are there; use auto or cpu"
        )
    if device.type not in {"cpu", "cuda"}:
        raise UsageError(f"--device {name}: not supported; expected auto, cpu, cuda or cuda:N")
    return device


def device_name(device: "torch.device") -> str:
    """The kind of a device, and the model of a GPU."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
