"""Scores on the native grid: per case, label, slice and region; clinical measures; summarised per group; models compared."""

from utseg.evaluate.compare import compare_models
from utseg.evaluate.metrics import Definition, evaluate_pair
from utseg.evaluate.official import official_utnet_scores
from utseg.evaluate.records import read_metrics
from utseg.evaluate.score import evaluate_cases
from utseg.evaluate.stack import evaluate_stack

__all__ = [
    "Definition",
    "compare_models",
    "evaluate_cases",
    "evaluate_pair",
    "evaluate_stack",
    "official_utnet_scores",
    "read_metrics",
]
