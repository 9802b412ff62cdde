"""`TrainRequest`: the options of one training run, as the command passes them on; and which of them no run can have."""

from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

from utseg.errors import LARGEST_COUNT, LARGEST_SEED, LONGEST_S, MOST_WORKERS, UsageError

# What --validate takes from the run: the option of each field of the request.
OF_TRAINING = {
    "epochs": "--epochs",
    "max_time_s": "--max-time",
    "patience": "--patience",
    "seed": "--seed",
    "weights": "--weights",
    "allow_mismatch": "--allow-mismatch",
    "fit": "--fit",
    "compile": "--compile",
    "settings": "--set",
}
ONE_OF = (("epochs", "max_time_s"), ("resume", "overwrite", "validate"))
WHOLE_NUMBERS = {
    "epochs": (1, LARGEST_COUNT),
    "patience": (1, LARGEST_COUNT),
    "seed": (0, LARGEST_SEED),
    "workers": (0, MOST_WORKERS),
}


@dataclass(frozen=True)
class TrainRequest:
    """One training run. `selection` is the second word of `utseg_train`: fold0 … fold4, all, or a selection such as vendor=A,B.

    `preprocessed` is `preprocessed/NAME`, `plan_folder` its `PLAN_2d`, `output` is `results/NAME/PLAN_2d/MODEL/FOLD`.
    `settings` are the parsed `--set` values. `raw` is `raw/NAME`, from which the final validation reads the images at native resolution.
    `save_probabilities`: that validation leaves the probabilities of its cases beside their masks.
    `weights` is a file (or a run's folder) to start from; where parts of it do not fit, `allow_mismatch` leaves those as initialised.
    (The command takes a folder with folds, and an archive, too.)
    `patience`: so many epochs without a better validation Dice end the run early.
    `validate`: nothing is trained; a run that has come to its end is validated again.
    `fit`: where the batch does not fit the memory, the largest that does is taken. `compile`: training steps run compiled (torch.compile).
    """

    model: str
    selection: str
    raw: Path
    preprocessed: Path
    plan_folder: Path
    output: Path
    epochs: int | None = None
    max_time_s: float | None = None
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = False
    overwrite: bool = False
    validate: bool = False
    workers: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    allow_mismatch: bool = False
    fit: bool = False
    save_probabilities: bool = False
    compile: bool = False

    @property
    def of_run_there(self) -> bool:
        """Whether it is about a run that was started before."""
        return self.resume or self.validate


def check_request(request: TrainRequest) -> None:
    """Raises UsageError for what the command's own words cannot say: options that exclude each other, numbers that no run can have."""
    given = [option for name, option in OF_TRAINING.items() if getattr(request, name)]
    if request.validate and given:
        raise UsageError(
            f"--validate trains nothing, and takes the run as it is: leave out {', '.join(given)}"
        )
    for names in ONE_OF:
        if len(both := [name for name in names if getattr(request, name)]) > 1:
            raise UsageError(f"{' and '.join(both)}: leave one out")
    for name, (least, most) in WHOLE_NUMBERS.items():
        value = getattr(request, name)
        if value is not None and not (isinstance(value, Integral) and least <= int(value) <= most):
            raise UsageError(f"{name}: expected a whole number from {least} to {most}, found {value!r}")
    seconds = request.max_time_s
    if seconds is not None and not 0 < seconds <= LONGEST_S:
        raise UsageError(f"max_time_s: expected seconds above 0, found {seconds!r}")
