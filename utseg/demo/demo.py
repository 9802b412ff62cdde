"""`run_demo`: phantom → plan → preprocess → train on vendors A and B → predict all four → evaluate → one picture per vendor, a report.

Every step is one call of the library; before each the command that does the same is logged. Every step keeps what is finished, so that a
second run goes on where the first one stopped. What the scores say about segmenting people: nothing (the phantom's README).
"""

import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from utseg.case import Case, Dataset
from utseg.demo.pictures import draw_pictures
from utseg.home import Home
from utseg.phantom.examination import PhantomSettings

logger = logging.getLogger("utseg")
NAME = "Phantom"
PLANNER = "cpu"
MODEL = "UTNet"
SEEN = ("A", "B")
SELECTION = f"vendor={','.join(SEEN)}"
TESTED = "Testing"


@dataclass(frozen=True)
class DemoSettings:
    """`epochs`, where given, stands instead of `max_time_s`. `train_settings` are values of plan and recipe by dotted key.

    `home_words` are the words of a command line that name the home folder, for the commands that are shown.
    """

    home: Home
    max_time_s: float = 285.0
    epochs: int | None = None
    train_settings: Mapping[str, Any] = field(default_factory=dict)
    cohort: PhantomSettings = field(default_factory=lambda: PhantomSettings(frames=8))
    workers: int | None = None
    home_words: tuple[str, ...] = ()

    @property
    def raw(self) -> Path:
        """The cohort's folder."""
        return self.home.raw / NAME

    @property
    def run(self) -> Path:
        """The trained model's folder."""
        return self.home.results / NAME / f"{PLANNER}_2d" / MODEL / SELECTION

    @property
    def testing(self) -> Path:
        """Where masks, scores and pictures of the test subjects go."""
        return self.home.results / NAME / "testing"


@dataclass(frozen=True)
class VendorScore:
    """Mean Dice of one vendor's test cases, per label name and over labels."""

    vendor: str
    name: str
    seen: bool
    cases: int
    dice: Mapping[str, float | None]
    mean: float | None


@dataclass(frozen=True)
class DemoResult:
    """What came out, for the command to show."""

    scores: tuple[VendorScore, ...]
    pictures: tuple[Path, ...]
    report: Path
    seconds: float


def run_demo(settings: DemoSettings) -> DemoResult:
    """Runs all steps. Raises UtsegError in one line where one cannot be done; run again, finished steps are kept."""
    from utseg.rawdata import open_dataset

    started = time.monotonic()
    _make_cohort(settings)
    dataset = open_dataset(settings.raw, NAME)
    _plan(settings, dataset)
    _train(settings)
    cases = [case for case in dataset.cases if case.partition == "testing" and case.label is not None]
    _predict(settings, cases)
    summary = _evaluate(settings, cases, dataset)
    _step(6, "one picture for each vendor: the test case of median Dice, its slice with the largest heart")
    pictures = draw_pictures(cases, dataset.labels, settings.testing, SEEN)
    report = _report(settings)
    seconds = time.monotonic() - started
    return DemoResult(vendor_scores(summary, cases), tuple(pictures), report, seconds)


def _make_cohort(settings: DemoSettings) -> None:
    from utseg.phantom.cohort import make_phantom

    words = [(f"--{name}", value) for name, value in asdict(settings.cohort).items() if value is not None]
    command = ("utseg_make_phantom", settings.raw, *chain(*words))
    _step(1, "a synthetic cine cohort of four vendors", command)
    make_phantom(settings.raw, settings.cohort, workers=settings.workers)


def _plan(settings: DemoSettings, dataset: Dataset) -> None:
    from utseg.preprocess.dataset import PlanRequest, prepare_dataset

    command = ("utseg_plan_and_preprocess", "-d", NAME, "-pl", PLANNER, *settings.home_words)
    _step(2, "look at every scan, plan the training, make the slices", command)
    request = PlanRequest(planner=PLANNER)
    prepared = prepare_dataset(dataset, settings.home.preprocessed / NAME, request, settings.workers)
    plan = prepared.plan
    logger.info(
        "plan: %g × %g mm, patch %d × %d, batch %d, base %d channels; each value with its reason is in %s",
        *plan.preprocessing.spacing_yx_mm,
        *plan.patch_size,
        plan.batch_size,
        plan.network.base_channels,
        shown_word(prepared.plan_folder / "plan.json"),
    )


def _train(settings: DemoSettings) -> None:
    from utseg.trainer import find_trainer
    from utseg.training.record import RUN_FILE, is_finished
    from utseg.training.request import TrainRequest

    resume = (settings.run / RUN_FILE).is_file()
    words: list[Any] = ["utseg_train", "2d", SELECTION, "-d", NAME, "-m", MODEL, "-pl", PLANNER]
    by_time = settings.epochs is None
    words += ["--max-time", f"{settings.max_time_s:g}s"] if by_time else ["--epochs", settings.epochs]
    words += ["--seed", settings.cohort.seed]
    for key, value in settings.train_settings.items():
        words += ["--set", f"{key}={value}"]
    words += ["--resume"] if resume else []
    _step(3, f"train {MODEL} on vendors {' and '.join(SEEN)}", (*words, *settings.home_words))
    if is_finished(settings.run):
        logger.info("%s: trained already", shown_word(settings.run))
        return
    find_trainer(MODEL)(
        TrainRequest(
            model=MODEL,
            selection=SELECTION,
            raw=settings.raw,
            preprocessed=settings.home.preprocessed / NAME,
            plan_folder=settings.home.preprocessed / NAME / f"{PLANNER}_2d",
            output=settings.run,
            epochs=settings.epochs,
            max_time_s=settings.max_time_s if by_time else None,
            seed=settings.cohort.seed,
            resume=resume,
            settings=dict(settings.train_settings),
        )
    )


def _predict(settings: DemoSettings, cases: Sequence[Case]) -> None:
    from utseg.device import resolve_device
    from utseg.predict.model import load_model
    from utseg.predict.pipeline import predict_cases

    masks = settings.testing / "masks"
    words = (
        "utseg_predict",
        "-i",
        settings.raw / TESTED,
        "-o",
        masks,
        "-d",
        NAME,
        "-m",
        MODEL,
        "-pl",
        PLANNER,
    )
    command = (*words, "-f", SELECTION, "--resume", *settings.home_words)
    _step(4, "segment the test subjects of all four vendors", command)
    model = load_model(settings.run, resolve_device("auto"))
    predict_cases(cases, [model], masks, workers=settings.workers, resume=True)


def _evaluate(settings: DemoSettings, cases: Sequence[Case], dataset: Dataset) -> dict[str, Any]:
    from utseg.evaluate.score import evaluate_cases

    masks, scores = settings.testing / "masks", settings.testing / "scores"
    command = ("utseg_evaluate", "-p", masks, "-g", settings.raw / TESTED, "-o", scores, *settings.home_words)
    _step(5, "score the masks against the references", command)
    return evaluate_cases(cases, masks, dataset.labels, scores, workers=settings.workers)


def _report(settings: DemoSettings) -> Path:
    from utseg.report import write_report

    scores, path = settings.testing / "scores", settings.testing / "report.html"
    words = ("utseg_report", scores, "-o", path, *settings.home_words)
    _step(7, "all of it in one page", words)
    command = shlex.join(shown_word(word) for word in words)
    return write_report([scores], path, home=settings.home, command=command, workers=settings.workers).path


def vendor_scores(summary: Mapping[str, Any], cases: Sequence[Case]) -> tuple[VendorScore, ...]:
    """The evaluation's summary by vendor, in the order of their letters."""
    names = {case.groups["vendor"]: case.groups["vendor_name"] for case in cases}
    return tuple(
        VendorScore(
            vendor=vendor,
            name=names[vendor],
            seen=vendor in SEEN,
            cases=group["cases"],
            dice={label: statistics["dice"]["mean"] for label, statistics in group["labels"].items()},
            mean=group["mean_dice"],
        )
        for vendor, group in sorted(summary["groups"]["vendor"].items())
    )


def score_table(scores: Sequence[VendorScore]) -> str:
    """Plain text: a line for each vendor, Dice by label (means over subjects), and the means over seen and unseen vendors."""
    from utseg.evaluate.tables import mean_of, number

    labels = list(scores[0].dice)
    lines = [
        f"{'vendor':<14}{'in training':<13}{'cases':>5}" + "".join(f"{name:>8}" for name in (*labels, "mean"))
    ]
    for score in scores:
        seen = "seen" if score.seen else "unseen"
        values = (*(score.dice[name] for name in labels), score.mean)
        lines.append(
            f"{f'{score.vendor} {score.name}':<14}{seen:<13}{score.cases:>5}"
            + "".join(f"{number(value, 3):>8}" for value in values)
        )
    for trained_on, words in ((True, "mean of seen vendors"), (False, "mean of unseen vendors")):
        value = mean_of(score.mean for score in scores if score.seen == trained_on)
        lines.append(f"{words:<32}{number(value, 3):>{8 * (len(labels) + 1)}}")
    return "\n".join(lines)


def _step(number: int, what: str, command: Sequence[object] = ()) -> None:
    logger.info("")
    logger.info("%d. %s", number, what)
    if command:
        logger.info("   $ %s", shlex.join(shown_word(word) for word in command))


def shown_word(word: object) -> str:
    """As a user would type it: paths below the current folder are relative."""
    if isinstance(word, Path) and word.is_relative_to(Path.cwd()):
        return str(word.relative_to(Path.cwd()))
    return str(word)
