"""`write_measures_page`: from the record of measures to self-contained HTML files."""

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from utseg.compute.pool import process_pool, run_each
from utseg.errors import InputError
from utseg.figures.colours import label_colours
from utseg.files import write_text
from utseg.measure.record import CineMeasures, MeasuresRecord
from utseg.progress import progress
from utseg.rawdata.names import name_problems
from utseg.report.measures.contours import CineContours, CineRequest, draw_contours
from utseg.report.measures.group import PAGES, address_of, page_of_group
from utseg.report.measures.one import Link, page_of_cine
from utseg.report.page import Page, render, require_output


@dataclass(frozen=True)
class MeasuresPages:
    """What was written: the page to open, those of the single cines, how many have contours, and why others have none."""

    path: Path
    pages: tuple[Path, ...]
    pictured: int
    notices: tuple[str, ...]


def write_measures_page(
    record: MeasuresRecord,
    masks: Path,
    output: Path,
    *,
    pictures: bool = True,
    executor: Executor | None = None,
    workers: int | None = None,
) -> MeasuresPages:
    """Writes the page into `output` (`….html`): that of the one cine; of several the page of all, and `pages/CINE.html` of each.

    masks: the folder of the masks. pictures: False for no images of patients. What cannot be drawn is left out with the reason.
    Raises InputError where nothing can be written there.
    """
    require_output(output)
    if problems := name_problems([cine.cine for cine in record.cines], "cine"):
        raise InputError("; ".join(problems))
    labels = {name: record.made.labels[name] for name in label_colours(record.made.labels)}
    several = len(record.cines) != 1
    notices: list[str] = []
    pages: list[Path] = []
    pictured = 0
    requests = [CineRequest(cine, masks, labels) for cine in record.cines] if pictures else []
    undrawn = {cine.cine: cine for cine in record.cines}

    def write_one(cine: CineMeasures, drawn: CineContours | None) -> None:
        links = _links(record.cines, cine, output) if several else ()
        path = output.parent / PAGES / f"{cine.cine}.html" if several else output
        _write(page_of_cine(record, cine, drawn, labels, links), path)
        pages.append(path)

    with (
        nullcontext(executor) if executor or not requests else process_pool(workers) as pool,
        progress("pages", len(requests)) as advance,
    ):
        for outcome in run_each(draw_contours, requests, pool, workers=workers) if pool else ():
            drawn = outcome.result
            if drawn is not None:
                pictured += 1
                notices += [drawn.notice] if drawn.notice else []
                write_one(undrawn.pop(drawn.cine), drawn)
            elif outcome.error is not None:
                notices += [f"No contours: {line}" for line in outcome.error.lines()]
            advance()
    for cine in undrawn.values():
        write_one(cine, None)
    if several:
        _write(page_of_group(record, notices), output)
    return MeasuresPages(output, tuple(sorted(pages)), pictured, tuple(notices))


def _write(page: Page, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(page))


def _links(cines: Sequence[CineMeasures], cine: CineMeasures, output: Path) -> list[Link]:
    """To the page of all cines, and to those before and after this one."""
    place = next(index for index, other in enumerate(cines) if other.cine == cine.cine)
    found = [("All cines", f"../{output.name}")]
    if place > 0:
        found.append((f"← {cines[place - 1].cine}", f"../{address_of(cines[place - 1].cine)}"))
    if place + 1 < len(cines):
        found.append((f"{cines[place + 1].cine} →", f"../{address_of(cines[place + 1].cine)}"))
    return found
