"""`results/NAME/best.json`: which models predict, with checksums, what is done to their masks, what else was tried, and why.

`utseg_predict` follows it where no model is named. A member that is gone or was trained again since makes it useless, and is an error.
"""

from pathlib import Path
from typing import Literal

from utseg.errors import ArtefactError
from utseg.evaluate.subjects import Interval
from utseg.files import sha256, write_text
from utseg.inference.views import AS_MIRRORED_IN_TRAINING, TestTimeAugmentation
from utseg.label_map import LabelValue
from utseg.postprocess import Postprocessing, in_words
from utseg.selection.augmentations import MeasuredAugmentation
from utseg.selection.choose import Candidate
from utseg.selection.trials import Trial
from utseg.settings import Settings, read_model
from utseg.training.record import RUN_FILE, WEIGHTS_FILE

BEST_FILE = "best.json"
SCORED_ON = "the subjects that it was chosen on, so a little too good; only subjects with no part in training or choice give a fair score"


class BestMember(Settings):
    """One run that predicts: PLAN_2d/MODEL/FOLD below `results/NAME`, and the SHA-256 of its weights' file."""

    run: str
    weights_sha256: str


class Compared(Settings):
    """What the candidates were compared on. `lacking`: subjects that some model did not hold back, by model; they are left out.

    `undefined`: subjects for whom some candidate has no score at all; left out too. `folds`: the subjects that each held back.
    """

    subjects: int
    cases: int
    folds: dict[str, tuple[str, ...]]
    lacking: dict[str, tuple[str, ...]]
    undefined: tuple[str, ...]


class Best(Settings):
    """The content of `best.json`. `candidates` are all that were tried, best first; `postprocessing_tried` in the order of trying.

    `mean_dice` and its interval are of what is chosen, postprocessing included, on the subjects that `scored_on` says. Like all candidates,
    its models were mirrored there as in training; `augmentation` says what is done instead, and what that gains (None: it was not measured,
    and prediction mirrors as training did).
    """

    format: Literal["utseg-best-1"] = "utseg-best-1"
    dataset: str
    chosen: str
    why: str
    command: str
    mean_dice: float
    interval95: Interval | None
    scored_on: str = SCORED_ON
    tie: bool
    members: tuple[BestMember, ...]
    labels: dict[str, LabelValue]
    postprocessing: Postprocessing
    compared: Compared
    candidates: tuple[Candidate, ...]
    postprocessing_rule: str
    postprocessing_tried: tuple[Trial, ...]
    augmentation: MeasuredAugmentation | None = None
    versions: dict[str, str]


def best_augmentation(best: Best) -> TestTimeAugmentation:
    """What `utseg_predict` does: what pays, or what training mirrored where that was not measured."""
    return AS_MIRRORED_IN_TRAINING if best.augmentation is None else best.augmentation.chosen


def treatment_in_words(best: Best) -> str:
    """What is done to images and masks, for people."""
    rules = ", ".join(map(in_words, best.postprocessing.rules)) or "none"
    views = "as training mirrored" if best.augmentation is None else best.augmentation.chosen.in_words()
    return f"postprocessing: {rules}; test-time augmentation: {views}"


def to_hand_on(best: Best, *, with_names: bool) -> Best:
    """What may leave the house: without the command, which names folders, and unless `with_names` without names of subjects."""
    best = best.model_copy(update={"command": "utseg_predict -i INPUT -o OUTPUT"})
    if with_names:
        return best
    unnamed = {key: dict.fromkeys(getattr(best.compared, key), ()) for key in ("folds", "lacking")}
    compared = best.compared.model_copy(update=unnamed | {"undefined": ()})
    measured = best.augmentation and best.augmentation.model_copy(update={"subjects": ()})
    return best.model_copy(update={"compared": compared, "augmentation": measured})


def write_best(best: Best, dataset: Path) -> None:
    """Writes `best.json` into `results/NAME`."""
    write_text(dataset / BEST_FILE, best.model_dump_json(indent=2) + "\n")


def read_best(dataset: Path) -> Best:
    """Reads `best.json` from `results/NAME`. Raises ArtefactError where it is not there, SettingError where it is not one."""
    return read_model(Best, dataset / BEST_FILE)


def best_runs(best: Best, dataset: Path) -> list[Path]:
    """The folders of the members, checked. Raises ArtefactError naming the first that is gone or has other weights now."""
    runs = []
    for member in best.members:
        folder = dataset / member.run
        inside = folder.resolve().is_relative_to(dataset.resolve())
        if not inside or not (folder / RUN_FILE).is_file() or not (folder / WEIGHTS_FILE).is_file():
            problem = "is not there any more"
        elif sha256(folder / WEIGHTS_FILE) != member.weights_sha256:
            problem = "has other weights than when it was chosen"
        else:
            runs.append(folder)
            continue
        raise ArtefactError(
            f"{dataset / BEST_FILE}: its member {member.run} {problem}; run utseg_find_best_configuration again, or choose with -m"
        )
    return runs
