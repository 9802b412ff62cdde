"""`TrainRequest`: the options of one training run, as the command passes them on."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
