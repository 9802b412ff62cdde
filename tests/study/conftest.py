"""A study as it is typed, on a tiny cohort: one run that finishes (in two parts), one that fails."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from commandline import run_command
from rawfiles import make_nnunet

from utseg.study.record import StudyRecord, read_study

TINY = """
name = "tiny"
plans = ["cpu"]
epochs = 1

[settings]
network = { base_channels = 4, levels = 2, block_list = [1, 2], reduce_size = 2 }
iterations_per_epoch = 2
batch_size = 2

[[variants]]
part = "a"
name = "planned"

[[variants]]
part = "b"
name = "wrong"
settings = { augmentation.rotation_deg = 999 }

[[variants]]
part = "b"
name = "planned"
"""


@dataclass(frozen=True)
class RanStudy:
    """What the command left and said."""

    home: Path
    file: Path
    output: Path
    code: int
    said: str
    errors: str

    @property
    def record(self) -> StudyRecord:
        return read_study(self.output)


@pytest.fixture(scope="session")
def ran(tmp_path_factory) -> RanStudy:
    home = tmp_path_factory.mktemp("study")
    make_nnunet(home / "raw" / "Tiny", subjects=6, size_zyx=(4, 36, 32))
    file, output = home / "tiny.toml", home / "out"
    file.write_text(TINY)
    result = run_command("utseg_study", file, "-d", "Tiny", "-o", output, "--device", "cpu", home=home)
    return RanStudy(home, file, output, result.returncode, result.stdout, result.stderr)
