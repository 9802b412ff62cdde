"""TensorBoard's event files. They grow as a run goes on: a log, which is not renamed into place, and whose last line may be cut off.

TensorBoard writes in a thread of its own. A disk that fails there would be a traceback on the terminal; here it is one error.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from utseg.errors import UtsegError

THREAD_ENDS_S = 1.0


class EventWriter:
    """Appends to a new event file in a folder. A context manager. options: of SummaryWriter. Raises UtsegError where the disk fails."""

    def __init__(self, folder: Path, **options: Any) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._hook = threading.excepthook
        threading.excepthook = self._of_other_threads
        with self._one_error():
            self._events: Any = SummaryWriter(str(folder), **options)

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        *,
        pictures: Iterable[tuple[str, Any]] = (),
        summaries: Iterable[Any] = (),
    ) -> None:
        """Writes values by tag, pictures (H, W, 3) uint8 by tag, and summaries as TensorBoard has them."""
        with self._one_error():
            for summary in summaries:
                self._events.file_writer.add_summary(summary, step)
            for tag, value in scalars.items():
                self._events.add_scalar(tag, value, step)
            for tag, picture in pictures:
                self._events.add_image(tag, picture, step, dataformats="HWC")
            self._events.flush()

    @contextmanager
    def _one_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            for thread in filter(_is_of_tensorboard, threading.enumerate()):
                thread.join(THREAD_ENDS_S)  # it has failed, and says so in a moment
            threading.excepthook = self._hook
            raise UtsegError(
                f"{self._folder}: TensorBoard events could not be written ({error.strerror or error}); the checkpoints are whole"
            ) from error

    def _of_other_threads(self, failed: threading.ExceptHookArgs) -> None:
        if not _is_of_tensorboard(failed.thread):
            self._hook(failed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # of what `write` has raised before
            self._events.close()
        threading.excepthook = self._hook


def _is_of_tensorboard(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")
