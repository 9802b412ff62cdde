"""`write_measures_page`: from the record of measures to self-contained HTML files."""

from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from utseg.compute.pool import InlineExecutor, process_pool, run_each
from utseg.errors import InputError, number_of
from utseg.files import write_text
from utseg.measure.record import CineMeasures, MeasuresRecord
from utseg.progress import progress
from utseg.report.measures.contours import CineContours, CineRequest, draw_contours, drawn_labels, named_only
from utseg.report.measures.group import PAGES, address_of, page_of_group
from utseg.report.measures.one import KIND, Link, page_of_cine
from utseg.report.page import Page, render, require_output

PAGE_FILE = "measures.html"
WITHOUT_POOL = 2
"""Cines that are drawn sooner than a pool of processes begins."""


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
    if paths := [cine.cine for cine in record.cines if Path(cine.cine).name != cine.cine]:
        raise InputError(f"cine {paths[0]!r}: expected a plain name, found a path; no page can be called so")
    labels = record.made.labels
    requests = [CineRequest(cine, masks, labels) for cine in record.cines] if pictures else []
    several = len(record.cines) != 1
    undrawn = {cine.cine: cine for cine in record.cines}
    lacking: dict[str, list[str]] = {}
    pages: list[Path] = []

    def write_one(cine: CineMeasures, drawn: CineContours | None) -> None:
        links = _links(record.cines, cine, output) if several else ()
        path = output.parent / PAGES / f"{cine.cine}.html" if several else output
        _write(page_of_cine(record, cine, drawn, drawn_labels(labels), links), path)
        pages.append(path)

    inline = executor or (InlineExecutor() if len(requests) <= WITHOUT_POOL else None)
    with (
        nullcontext(inline) if inline else process_pool(workers) as pool,
        progress("pages", len(requests)) as advance,
    ):
        for outcome in run_each(draw_contours, requests, pool, workers=workers):
            drawn, cine = outcome.result, outcome.item.measures
            if drawn is not None:
                write_one(undrawn.pop(cine.cine), drawn)
            elif outcome.error is not None:
                words = f"no contours: {named_only(outcome.error, masks)}"
                lacking.setdefault(words, []).append(cine.cine)
            if drawn is not None and drawn.lacks:
                lacking.setdefault(drawn.lacks, []).append(cine.cine)
            advance()
    pictured = len(pages)
    for cine in undrawn.values():
        write_one(cine, None)
    notices = [f"{_named(cines)}: {why}" for why, cines in lacking.items()]
    if several:
        _write(page_of_group(record, notices), output)
    _remove_older(output.parent / PAGES, pages)
    return MeasuresPages(output, tuple(sorted(pages)), pictured, tuple(notices))


def _named(cines: Sequence[str]) -> str:
    return cines[0] if len(cines) == 1 else number_of(len(cines), "cine")


def _write(page: Page, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render(page))


def _remove_older(folder: Path, pages: Sequence[Path]) -> None:
    """Removes pages of cines that were measured before and are no more: they show patients. Other files stay."""
    for path in set(folder.glob("*.html")) - set(pages):
        if f'<p class="kind">{KIND}</p>' in path.read_text(encoding="utf-8", errors="replace"):
            path.unlink()


def _links(cines: Sequence[CineMeasures], cine: CineMeasures, output: Path) -> list[Link]:
    """To the page of all cines, and to those before and after this one."""
    place = next(index for index, other in enumerate(cines) if other.cine == cine.cine)
    found = [("All cines", f"../{output.name}")]
    if place > 0:
        found.append((f"← {cines[place - 1].cine}", f"../{address_of(cines[place - 1].cine)}"))
    if place + 1 < len(cines):
        found.append((f"{cines[place + 1].cine} →", f"../{address_of(cines[place + 1].cine)}"))
    return found
