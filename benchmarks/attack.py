"""The attacks of `tests/attack` in full: every call that writes fails once, every command is killed at random moments, and
every reader is given changed files.

    python benchmarks/attack.py faults [COMMAND …] [--every 1] -o FOLDER
    python benchmarks/attack.py kills [COMMAND …] --count 40 [--seed 0] -o FOLDER
    python benchmarks/attack.py fuzz [READER …] --count 3000 [--seed 0] [--shared ../shared] -o FOLDER

Without names: all. FOLDER/faults.csv has a line for each fault, FOLDER/kills.csv one for each kill, FOLDER/finds.csv one for each input
that was neither read nor refused, and the inputs lie beside it. Faults and kills need Linux, faults a C compiler. The exit code is 1
where anything was found.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "predict"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from attack.faults import compiled


def main() -> None:
    if sys.argv[1:2] not in (["faults"], ["kills"], ["fuzz"]):
        raise SystemExit(__doc__)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path[:2]]),
        "UTSEG_HOME": os.devnull,
    }
    if sys.argv[1] == "faults":
        library = compiled(Path(tempfile.mkdtemp(prefix="attack-")))
        if library is None:
            raise SystemExit("error: faults need Linux and a C compiler called cc")
        environment["LD_PRELOAD"] = str(library)
    words = [sys.executable, "-m", f"attack.{sys.argv[1]}", *sys.argv[2:]]
    os.execve(sys.executable, words, environment)


if __name__ == "__main__":
    main()
