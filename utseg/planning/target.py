"""`Target`: the network, how it is trained, and the memory of its device, for which a plan is made."""

from dataclasses import dataclass

from utseg.home import Configuration
from utseg.planning.memory import MemoryEstimate, StepKind

DEFAULT_NETWORK = "UTNet"
DEFAULT_MEMORY_GB = 8.0
AS_BY_DEFAULT = StepKind()


@dataclass(frozen=True)
class Target:
    """The network, how it is trained, and the memory (1024³ bytes) of the device that does it. Planners get a fingerprint and this."""

    memory_gb: float = DEFAULT_MEMORY_GB
    configuration: Configuration = "2d"
    network_name: str = DEFAULT_NETWORK
    kind: StepKind = AS_BY_DEFAULT


def recorded_memory(estimate: MemoryEstimate, network_name: str, kind: StepKind) -> tuple[float, str]:
    """What a plan says of its memory: gigabytes, and where they come from."""
    total = round(estimate.total_gb, 3)
    counted = f"counted on a dry run of {network_name}'s training step, {kind.in_words()}"
    return total, f"{total:g} GB, {counted}: {estimate.in_words()}"
