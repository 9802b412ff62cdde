"""The line about a dataset: what is counted over subjects and what over cases."""

from pathlib import Path

from utseg.case import Case, Dataset
from utseg.commands.plan_and_preprocess import describe_dataset


def test_columns_that_vary_within_a_subject_are_counted_over_cases():
    cases = tuple(
        Case(
            f"{subject}_{phase}",
            subject,
            (),
            label=Path("label"),
            phase=phase,
            groups={"vendor": vendor, "phase": phase},
        )
        for subject, vendor in (("s0", "A"), ("s1", "B"))
        for phase in ("ED", "ES")
    )
    dataset = Dataset("Heart", Path("Heart"), "nnunet", ("cine",), {"background": 0, "LV": 1}, cases)
    line = describe_dataset(dataset)
    assert line == "Heart: 4 cases of 2 subjects to train on; vendor A 1, B 1; phase ED 2, ES 2"
