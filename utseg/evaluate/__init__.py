"""Scores on the native grid: per case and label, then summarised per group."""

from utseg.evaluate.metrics import evaluate_pair
from utseg.evaluate.score import evaluate_cases

__all__ = ["evaluate_cases", "evaluate_pair"]
