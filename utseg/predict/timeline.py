"""When each stage worked on each volume: the figures for the log, and a picture.

Times are seconds of the monotonic clock, which all processes of one machine share. Nothing is decided by them.
"""

import io
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from utseg.files import write_bytes

READING, NETWORK, RESTORING, WRITING = STAGES = ("reading", "network", "restoring", "writing")
"""Reading: the gate, resampling and normalising. Restoring: back to the native grid, postprocessing and judging."""
_COLOURS = {READING: "#56B4E9", NETWORK: "#D55E00", RESTORING: "#009E73", WRITING: "#CC79A7"}
_NAMES_SHOWN = 60
_ROW_INCHES = 0.17
_HEIGHT_INCHES = (3.0, 30.0)


@dataclass(frozen=True)
class Span:
    """A stage worked from `start` to `end`."""

    stage: str
    start: float
    end: float

    @property
    def seconds(self) -> float:
        """How long."""
        return self.end - self.start


class Timeline:
    """The spans of a prediction, by volume."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.spans: dict[str, list[Span]] = defaultdict(list)

    def add(self, volume: str, *spans: Span) -> None:
        """Notes what was done for a volume."""
        self.spans[volume].extend(spans)

    def seconds(self, stage: str) -> list[float]:
        """How long a stage took, for each volume that it has seen."""
        by_volume = ([span.seconds for span in spans if span.stage == stage] for spans in self.spans.values())
        return [sum(each) for each in by_volume if each]

    def summary(self) -> str | None:
        """One line for the log: how busy the network was from the start until now, and what a volume takes; None without volumes."""
        network = sum(self.seconds(NETWORK))
        if not network:
            return None
        elapsed = time.monotonic() - self.start
        medians = ", ".join(
            f"{stage} {statistics.median(seconds):.2f}"
            for stage in STAGES
            if (seconds := self.seconds(stage))
        )
        return (
            f"the network worked for {network:.1f} of {elapsed:.1f} s ({network / elapsed:.0%}; all together took "
            f"{elapsed / network:.2f} times as long); median seconds a volume: {medians}"
        )

    def write_picture(self, path: Path) -> None:
        """Writes a PNG: a row a volume, a colour a stage, seconds from the start. Raises UtsegError where it cannot be written."""
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch

        volumes = sorted(self.spans, key=lambda volume: min(span.start for span in self.spans[volume]))
        least, most = _HEIGHT_INCHES
        height = min(max(least, 1.2 + _ROW_INCHES * len(volumes)), most)
        figure = Figure(figsize=(11, height), layout="constrained")
        axes = figure.add_subplot()
        for row, volume in enumerate(volumes):
            for stage in STAGES:
                bars = [
                    (span.start - self.start, span.seconds)
                    for span in self.spans[volume]
                    if span.stage == stage
                ]
                axes.broken_barh(bars, (row - 0.4, 0.8), color=_COLOURS[stage], linewidth=0.7)
        axes.set_ylim(max(len(volumes), 1) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("seconds")
        if len(volumes) <= _NAMES_SHOWN:
            axes.set_yticks(range(len(volumes)), volumes, fontsize=7)
        else:
            axes.set_ylabel("volumes")
        axes.spines[["top", "right"]].set_visible(False)
        keys = [Patch(color=_COLOURS[stage], label=stage) for stage in STAGES]
        figure.legend(handles=keys, loc="outside upper left", ncols=len(keys), frameon=False)
        figure.supxlabel(self.summary() or "no volume was predicted", fontsize=8)
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=110)
        write_bytes(path, data.getvalue())
