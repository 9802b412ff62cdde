"""Which trained models predict, and what is done to their masks: found on out-of-fold predictions only, and written down with reasons."""

from utseg.selection.find import find_best_configuration
from utseg.selection.models import SelectionRequest
from utseg.selection.record import BEST_FILE, Best, best_augmentation, best_runs, read_best

__all__ = [
    "BEST_FILE",
    "Best",
    "SelectionRequest",
    "best_augmentation",
    "best_runs",
    "find_best_configuration",
    "read_best",
]
