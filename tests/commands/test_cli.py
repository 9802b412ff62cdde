"""What every command makes of an error: exit code, `error: …` line, and with --debug a traceback besides."""

import errno
import signal
import subprocess

import pytest
from commandline import SCRIPTS

from utseg.commands import demo, make_phantom, predict, study
from utseg.commands.cli import run
from utseg.commands.options import Parser
from utseg.errors import CaseErrors, InputError, Interrupted, UsageError

ERRORS = [
    (InputError("no such file"), 1, ["error: no such file"]),
    (CaseErrors(["case a: bad", "case b: bad"]), 1, ["error: case a: bad", "error: case b: bad"]),
    (UsageError("no such plan"), 2, ["error: no such plan"]),
    (Interrupted("stopped\nafter one"), 75, ["error: stopped after one"]),
    (KeyboardInterrupt(), 75, ["error: interrupted; run the command again to go on"]),
    (
        OSError(28, "No space left on device", "a.csv"),
        1,
        ["error: a.csv: No space left on device; see to the disk"],
    ),
    (OSError(5, "Input/output error"), 1, ["error: Input/output error; see to the disk"]),
    (
        OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000),
        1,
        [f"error: {'x' * 200}… (5000 characters): File name too long; choose a shorter name"],
    ),
    (ZeroDivisionError("oops"), 1, ["error: unexpected ZeroDivisionError: oops"]),
]


@pytest.fixture(autouse=True)
def own_handlers():
    """A command sets the handler of SIGTERM; the tests after these get theirs back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize(("error", "code", "lines"), ERRORS)
def test_debug_adds_a_traceback_and_changes_no_exit_code(capsys, error, code, lines, debug):
    def body(arguments):
        raise error

    parser = Parser("utseg_x", "Does x.", "utseg_x")
    assert run(parser, body, ["--debug"] if debug else []) == code
    written = capsys.readouterr().err
    found = [line for line in written.splitlines() if line.startswith("error: ")]
    assert len(found) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(found, lines, strict=True))
    assert ("Traceback" in written and type(error).__name__ in written.split("\nerror: ")[0]) == debug


@pytest.mark.parametrize(
    ("command", "words", "least"),
    [
        (make_phantom, ["new", "--seed", "-1"], 0),
        (demo, ["--seed", "-1"], 0),
        (make_phantom, ["new", "--frames", "few"], 1),
        (predict, ["-i", "a", "-o", "b", "-np", "-1"], 0),
        (study, ["vendors", "-np", "0"], 1),
    ],
)
def test_numbers_are_refused_in_the_same_words_by_all_commands(capsys, command, words, least):
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    said = f"expected a whole number of at least {least}, found {words[-1]!r}"
    assert stopped.value.code == 2 and said in capsys.readouterr().err


def test_a_reader_that_goes_away_stops_no_work(tmp_path):
    """As in `… | head -1`."""
    words = [SCRIPTS / "utseg_make_phantom", tmp_path / "out", "--subjects", 4, "--frames", 2, "--matrix", 48]
    process = subprocess.Popen(
        list(map(str, [*words, "-np", 1])), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait(120) == 0
    assert list((tmp_path / "out").rglob("*.nii.gz"))
