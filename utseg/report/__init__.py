"""Scores, runs and pictures as one HTML file, and its tables as files of their own."""

from utseg.report.write import write_report

__all__ = ["write_report"]
