"""Processes that make batches, each with a pipe of its own to this one: worker `w` of `n` makes `first + w`, `first + w + n`, …

Not an executor pool, where a worker that is killed while it sends leaves the others waiting for the shared pipe; not torch's DataLoader,
which says neither by which signal a worker ended nor which batch is missing.
"""

import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from utseg.compute.pool import fresh_process_context
from utseg.errors import UtsegError, WorkerError

SECONDS_TO_END = 5.0


class LoaderProcesses:
    """Workers for the batches of one run; `close` ends them.

    `make_loader` is picklable; called in the worker it gives a loader whose `make_batch` makes the batch of an iteration.
    """

    def __init__(self, make_loader: Callable[[], Any], first: int, count: int, workers: int) -> None:
        self._first = first
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context: Any = fresh_process_context()  # its base class does not declare Process
        if context.get_start_method() == "forkserver":
            context.set_forkserver_preload(
                ["torch", "utseg.augment.loader"]
            )  # imported once, not by each worker
        try:
            for index in range(workers):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=_make_batches,
                    args=(make_loader, sender, range(first + index, first + count, workers)),
                    name=f"data worker {index + 1} of {workers}",
                    daemon=True,
                )
                self._connections.append(receiver)
                process.start()
                self._processes.append(process)
                sender.close()
        except BaseException:
            self.close()
            raise

    def receive(self, iteration: int) -> Any:
        """The batch of an iteration; to be called for each one, in order. A dead worker raises WorkerError, a UtsegError is passed on."""
        index = (iteration - self._first) % len(self._processes)
        try:
            message = self._connections[index].recv()
        except (EOFError, OSError):
            raise self._death(self._processes[index], iteration) from None
        if isinstance(message, UtsegError):
            raise message
        return message

    def kill(self) -> None:
        """Ends the workers at once. They only read, so nothing is lost; one that waits in `receive` gets WorkerError."""
        for process in self._processes:
            process.kill()

    def close(self) -> None:
        """Ends the workers, and waits for that."""
        self.kill()
        for process in self._processes:
            process.join()
        for connection in self._connections:
            connection.close()

    @staticmethod
    def _death(process: BaseProcess, iteration: int) -> WorkerError:
        process.join(SECONDS_TO_END)
        code = process.exitcode or 0
        who = f"{process.name} (process {process.pid})"
        if code >= 0:
            return WorkerError(
                f"{who} ended with exit code {code} before batch {iteration} was there; its own message stands above"
            )
        name = {number.value: f" ({number.name})" for number in signal.Signals}.get(-code, "")
        return WorkerError(
            f"{who} was killed by signal {-code}{name} before batch {iteration} was there; most often that is lack of memory: "
            "try fewer workers or a smaller batch, or look into the system log"
        )


def _make_batches(make_loader: Callable[[], Any], sender: Connection, iterations: range) -> None:
    """The worker: sends each batch, or the error that ends it. Goes away when nobody receives any more (the receiver was killed)."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt from the terminal is the receiver's to handle
    torch.set_num_threads(1)
    with suppress(BrokenPipeError, ConnectionResetError):
        try:
            loader = make_loader()
            for iteration in iterations:
                sender.send(loader.make_batch(iteration))
        except UtsegError as error:
            sender.send(error)
