"""What whole runs of this room need: one thread, and no time for pictures, which `test_log` draws."""

from threads import no_pictures, one_thread  # noqa: F401 — used by being there
