"""Scores, runs, studies and pictures as one HTML file, and its tables as files of their own; measures as a page a cine."""

from utseg.report.scores.write import write_report
from utseg.report.study.write import write_study_report

__all__ = ["write_report", "write_study_report"]
