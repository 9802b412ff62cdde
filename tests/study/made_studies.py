"""Datasets of cases without files, and small cohorts, for tests of studies."""

from pathlib import Path

import pytest
from commandline import run_here
from hypothesis import strategies as st

from utseg.case import Case, Dataset
from utseg.compute.pool import InlineExecutor
from utseg.study.jobs import read_job
from utseg.study.walk import run_job

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3}
VENDORS = "ABCD"
PATHOLOGIES = ("NOR", "DCM", "HCM")


def make_dataset(name="MnM", subjects=(), folder=Path("/raw"), labels=LABELS, channels=("cine",)) -> Dataset:
    """`subjects`: (vendor, partition) of each, or (vendor, partition, labelled); ED and ES of each are cases."""
    cases = []
    for number, (vendor, partition, *rest) in enumerate(subjects):
        subject = f"{name}{number:03d}"
        for phase in ("ED", "ES"):
            image = folder / name / f"{subject}_{phase}.nii.gz"
            label = folder / name / f"{subject}_{phase}_gt.nii.gz"
            groups = {"vendor": vendor, "pathology": PATHOLOGIES[number % 3], "phase": phase}
            groups = {column: value for column, value in groups.items() if value}
            labelled = not rest or rest[0]
            cases.append(
                Case(
                    f"{subject}_{phase}",
                    subject,
                    (image,),
                    label if labelled else None,
                    None,
                    phase,
                    partition,
                    groups,
                )
            )
    return Dataset(name, folder / name, "nnunet", channels, labels, tuple(cases))


def cohort(training="AAAAABBBBB", testing="ABCD", name="MnM", **changes) -> Dataset:
    """A letter a subject: the vendor."""
    subjects = [(vendor, "training") for vendor in training] + [(vendor, "testing") for vendor in testing]
    return make_dataset(name, subjects, **changes)


def cohorts(*, least_training=4, testing=True):
    """Random cohorts, every vendor with at least two training subjects; with or without a testing partition."""
    training = st.lists(st.sampled_from(VENDORS[:3]), min_size=least_training, max_size=40)
    tested = st.lists(st.sampled_from(VENDORS), min_size=1 if testing else 0, max_size=6 if testing else 0)
    return st.builds(
        lambda one, other: cohort("".join([*one, *dict.fromkeys(one)]), "".join(other)), training, tested
    )


def run_study_here(patch: pytest.MonkeyPatch, *words: object, home: Path):
    """`utseg_study` with all its runs in this process, which spares the start of others."""

    def execute(folder: str) -> None:
        run_job(read_job(Path(folder)), Path(folder))

    patch.setattr("utseg.study.run.execute_job", execute)
    patch.setattr("utseg.study.run.ThreadPoolExecutor", lambda _: InlineExecutor())
    for module in ("utseg.study.data", "utseg.study.images", "utseg.evaluate.score"):
        patch.setattr(f"{module}.process_pool", lambda workers=None: InlineExecutor())
    return run_here("utseg_study", *words, home=home)
