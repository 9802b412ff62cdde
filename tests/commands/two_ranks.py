"""Run by torchrun in two processes: what they agree on, add, and fail with together, and commands that train.

    two_ranks.py HOME COMMANDS

COMMANDS is JSON, of a name the words of a `utseg_train`. What each said and its exit code are left in HOME/NAME.RANK.json.
"""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from commandline import run_here
from tiny_runs import make_request

from trainers.utnet import recipe
from utseg.errors import CaseErrors, InputError, UsageError, UtsegError
from utseg.files import write_json
from utseg.networks.losses import LossSettings, training_loss
from utseg.trainer import train_by_recipe
from utseg.training import log, time_limit
from utseg.training.interrupt import Stopped, interruptible
from utseg.training.processes import Processes, RankLost, SaidElsewhere, join_processes
from utseg.training.record import read_run
from utseg.training.step import add_gradients, total_of_parts


def raised(work: Callable[[], object]) -> BaseException:
    try:
        work()
    except (UtsegError, Stopped) as error:
        return error
    raise AssertionError("nothing was raised")


def check_values(processes: Processes) -> None:
    assert (processes.size, processes.local_size) == (2, 2) and processes.rank == processes.local_rank
    assert processes.gather(f"from {processes.rank}") == ["from 0", "from 1"]
    assert processes.on_first(lambda: f"said by {processes.rank}") == "said by 0"
    assert len(set(processes.gather(processes.now()))) == 1
    assert processes.fail_together(lambda: processes.rank) == processes.rank
    assert processes.total(torch.tensor([1.0, processes.rank])).tolist() == [2, 1]
    assert processes.gather(processes.rows(6)) == [range(3), range(3, 6)]


def check_errors(processes: Processes) -> None:
    def fails(rank: int, error: BaseException) -> Callable[[], None]:
        def work() -> None:
            if processes.rank == rank:
                raise error

        return work

    found = raised(lambda: processes.fail_together(fails(1, UsageError("no such GPU"))))
    assert isinstance(found, UtsegError) and found.exit_code == 2
    assert found.lines() == (["rank 1: no such GPU"] if processes.is_first else [])
    found = raised(lambda: processes.on_first(fails(0, CaseErrors(["a", "b"]))))
    assert isinstance(found, UtsegError) and found.lines() == (["a", "b"] if processes.is_first else [])
    assert isinstance(raised(lambda: processes.fail_together(fails(1, Stopped()))), Stopped)
    both = raised(lambda: processes.fail_together(fails(processes.rank, InputError("the same"))))
    assert isinstance(both, InputError) if processes.is_first else isinstance(both, SaidElsewhere)


def check_a_signal_to_one_stops_all(processes: Processes) -> None:
    with interruptible(one_of_many=True) as interruption:
        processes.check_interrupted(interruption)
        if processes.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        assert isinstance(raised(lambda: processes.check_interrupted(interruption)), Stopped)
        assert interruption.reason == (
            "SIGTERM" if processes.rank else "a signal to another process of the run"
        )


def check_losses_and_gradients_are_those_of_the_whole_batch(processes: Processes) -> None:
    torch.manual_seed(0)
    x, network = torch.randn(6, 3, 5, 4), torch.nn.Conv2d(3, 4, 1)
    network.weight.data = network.weight.data.contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 4, (6, 5, 4))
    target[3:][target[3:] == 2] = 0  # a label that the second part lacks
    settings = LossSettings()
    whole, terms = training_loss([network(x), network(x.flip(1))], target, settings)
    expected = torch.autograd.grad(whole, list(network.parameters()))
    own = slice(*{0: (0, 3), 1: (3, 6)}[processes.rank])
    outputs = [network(x[own]), network(x[own].flip(1))]
    part, part_terms = training_loss(outputs, target[own], settings, total_of_parts(processes.total))
    part.backward()
    add_gradients(network.parameters(), processes.total)
    torch.testing.assert_close(part, whole)
    assert part_terms.keys() == terms.keys()
    for name, value in terms.items():
        torch.testing.assert_close(part_terms[name], value)
    for parameter, gradient in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def check_max_time_is_agreed_on(processes: Processes, home: Path) -> None:
    time_limit.LEAST_ITERATIONS = 4
    time_limit.NATIVE_SECONDS_PER_CASE, time_limit.NATIVE_SECONDS = 0.1, 0.3
    time_limit.epochs_that_fit = lambda first, done, spent, limit: first
    original = time_limit.measure_iterations

    def measured(step, batches, limit_s, clock):
        return 12.0 + 0 * original(step, batches, 0.01 * limit_s, clock)

    time_limit.measure_iterations = measured
    request = make_request(home, home / "timed", max_time_s=120.0)
    result = train_by_recipe(request, recipe("UTNet"))
    assert bool(result) == processes.is_first
    processes.gather(None)  # the native validation is rank 0's
    record = read_run(request.output)
    assert processes.gather(record.epochs)[0] == record.epochs and 4 <= record.epochs <= 30
    assert record.versions["processes"] == "2"


def train(processes: Processes, home: Path, commands: dict[str, list[str]]) -> None:
    for name, words in commands.items():
        result = run_here("utseg_train", *words)
        said = {"code": result.returncode, "out": result.stdout, "err": result.stderr}
        write_json(home / f"{name}.{processes.rank}.json", said)
        processes.gather(None)  # the native validation is rank 0's


def check_a_lost_rank_is_noticed(processes: Processes) -> None:
    if processes.rank == 1:
        os._exit(0)
    found = raised(lambda: [processes.now() for _ in range(1000)])
    assert isinstance(found, RankLost) and "another process of this run has ended" in str(found)


def main() -> None:
    processes = join_processes()
    assert join_processes() is processes
    assert logging.getLogger("utseg").isEnabledFor(logging.WARNING) == processes.is_first
    log.draw_progress = lambda history: b""  # which takes as long as a run
    home = Path(sys.argv[1])
    check_values(processes)
    check_errors(processes)
    check_a_signal_to_one_stops_all(processes)
    check_losses_and_gradients_are_those_of_the_whole_batch(processes)
    train(processes, home, json.loads(sys.argv[2]))
    check_max_time_is_agreed_on(processes, home)
    check_a_lost_rank_is_noticed(processes)
    sys.stdout.write("all checks passed\n")


if __name__ == "__main__":
    main()
