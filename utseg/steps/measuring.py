"""`measure`: volumes, ejection fraction and mass of the cines in a folder of masks, without references."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from utseg.cardiac.structures import HEART, find_structures
from utseg.cardiac.volumes import BASAL_RULES, BasalRule
from utseg.case import Dataset
from utseg.dicom.sources import CINES_FILE
from utseg.errors import CaseErrors, InputError, UsageError, UtsegError, explained_by, listing
from utseg.evaluate.pairs import files_by_case, require_masks, with_background
from utseg.evaluate.references import References, find_references, labels_of_masks, require_same
from utseg.files import folder_lock, require_writable
from utseg.home import FilePath
from utseg.label_map import IGNORE, Labels
from utseg.labels import checked_labels, in_words
from utseg.measure.cines import Known, find_images, find_masks, join_cines, recorded_images
from utseg.measure.group import compare, distributions
from utseg.measure.measure import RULES, measure_cine
from utseg.measure.objects import remove_objects
from utseg.measure.record import MEASURES_FILE, CineMeasures, MeasuresRecord, Provenance, write_measures
from utseg.measure.table import About, read_cines, wrong_numbers
from utseg.measure.tables import write_tables
from utseg.predict.record import PREDICTION_FILE, predicted_cases, read_record, seen_in_training, versions_of
from utseg.progress import progress
from utseg.rawdata import require_outside_datasets
from utseg.rawdata.description import DESCRIPTION_FILE
from utseg.rawdata.gate import read_geometry
from utseg.rawdata.names import NIFTI_ENDINGS
from utseg.report.measures.write import PAGE_FILE, MeasuresPages, write_measures_page
from utseg.steps.datasets import named_dataset

logger = logging.getLogger("utseg")


def measure(
    masks: FilePath,
    output: FilePath,
    *,
    dataset: Dataset | str | None = None,
    home: FilePath | None = None,
    labels: Labels | None = None,
    images: FilePath | None = None,
    table: FilePath | None = None,
    references: FilePath | None = None,
    basal_rule: BasalRule = "all",
    dicom: bool = False,
    pictures: bool = True,
    workers: int | None = None,
) -> MeasuresRecord:
    """Measures the cines in `masks`, 4-D files or masks of ED and ES, and writes `measures.json`, `measures.csv`, `curves.csv` and pages.

    dataset: knows subjects, phases and groups, and the labels where nothing beside the masks says them; opened, or its name below `home`.
    labels: names and values in the masks, where nothing else does. images: what the masks are of, a folder, a file or a raw dataset;
    None: the files that `prediction.json` names. A `cines.csv` beside them is the table.
    table: CSV by cine (or case) with subject, phase, heart rate, height, weight, groups. references: labels to compare with.
    dicom: writes each cine's measures into `dicom/`, for cines that utseg_import_dicom made, which `images` names.
    pictures: False for pages without images of patients.
    Raises InputError and UsageError before anything is measured; CaseErrors at the end with a line for each mask that could not be, when
    the others are measured and written.
    """
    masks, output, dataset = Path(masks), Path(output), named_dataset(dataset, home)
    require_outside_datasets(output)
    labels = None if labels is None else checked_labels(labels)
    if basal_rule not in BASAL_RULES:
        raise UsageError(f"basal rule {basal_rule!r}: there are {', '.join(BASAL_RULES)}")
    require_masks(masks)
    if output.resolve() == masks.resolve():
        raise InputError(
            f"{output}: is the folder of the masks; measures must not mix with masks: choose another with -o"
        )
    compared = None if references is None else _compared(Path(references), masks, dataset, labels)
    known = _known(masks, dataset, images, table)
    if compared:
        known = replace(known, cases=(*known.cases, *compared.cases))
    numbering = compared.mask_labels if compared else mask_numbering(masks, dataset, labels)
    numbering = _with_a_heart(numbering, masks)
    with explained_by(compared.warnings if compared else dataset.warnings if dataset else ()):
        cines, problems = _measured(masks, numbering, known, basal_rule)
        if not cines:
            raise CaseErrors(problems)
        record = _record(cines, masks, numbering, basal_rule, compared)
    pages, unwritten = _write(record, masks, output, dicom=dicom, pictures=pictures, workers=workers)
    problems += unwritten
    notices = [*pages.notices, *([] if pictures else _off_grid(record.cines, masks))]
    for notice in notices:
        logger.warning("%s", notice)
    if problems:
        raise CaseErrors(problems)
    return record


def _write(
    record: MeasuresRecord, masks: Path, output: Path, *, dicom: bool, pictures: bool, workers: int | None
) -> tuple[MeasuresPages, list[str]]:
    """Writes all files; the pages, and a line for each cine of which no DICOM could be written."""
    problems: list[str] = []
    require_writable(output)
    with folder_lock(output):
        remove_objects(output)
        (output / MEASURES_FILE).unlink(missing_ok=True)  # last of all: without it nothing there is whole
        write_tables(record.cines, output)
        pages = write_measures_page(record, masks, output / PAGE_FILE, pictures=pictures, workers=workers)
        if dicom:
            problems += _write_dicom(record, output)
        write_measures(record, output)
    return pages, problems


def _compared(references: Path, masks: Path, dataset: Dataset | None, labels: Labels | None) -> References:
    """The references, which are annotated wholly. Raises InputError, and as `find_references`."""
    found = find_references(references, masks, dataset, labels)
    if IGNORE in found.labels:
        raise InputError(
            f"{references}: volumes of references that are ignored in part ({IGNORE}) are not known; leave -g out"
        )
    return found


def _with_a_heart(numbering: Labels, masks: Path) -> Labels:
    """The numbering with a background; refused where no label is a structure of the heart."""
    if not find_structures(numbering).names:
        raise InputError(
            f"{masks}: no label is one of {', '.join(HEART)} by its name, so that nothing can be measured: "
            f"{in_words(with_background(numbering))}; say which they are with --labels LV=1 MYO=2 RV=3"
        )
    return with_background(numbering)


def mask_numbering(masks: Path, dataset: Dataset | None, labels: Labels | None) -> Labels:
    """How the masks number their labels: as a record beside them says, else as typed, else as the dataset does. Raises InputError."""
    recorded = labels_of_masks(masks)
    if labels is not None:
        require_same(labels, recorded)
        return labels
    if recorded is not None:
        return recorded[0]
    if dataset is None:
        raise InputError(
            f"{masks}: nothing says how the masks number their labels; name their dataset with -d, put {PREDICTION_FILE} or "
            f"{DESCRIPTION_FILE} beside them, or say --labels LV=1 MYO=2 RV=3"
        )
    logger.info("%s: nothing says how the masks are numbered; taken as %s", masks, in_words(dataset.labels))
    return dataset.labels


def _known(masks: Path, dataset: Dataset | None, images: FilePath | None, table: FilePath | None) -> Known:
    cases, files = ((), recorded_images(masks)) if images is None else find_images(Path(images))
    cases = (*(dataset.cases if dataset else ()), *cases)
    wrong = [f"{case.subject}: {text}" for case in cases for text in wrong_numbers(case.person)]
    if wrong:
        logger.warning("not used: %s", listing(list(dict.fromkeys(wrong))))
    rows: dict[str, About] = {}
    beside = [
        path
        for folder in dict.fromkeys(image.path.parent for image in files.values())
        if (path := folder / CINES_FILE).is_file()
    ]
    if table is not None:
        known, names = Known(cases, read_cines(Path(table)), files), files_by_case(masks)
        if unused := [str(path) for path in beside if path.resolve() != Path(table).resolve()]:
            logger.info("%s: not read, as --table takes its place", listing(unused))
        named = {*names, *(known.about(name).subject for name in names)}
        if absent := [name for name in known.table if name not in named]:
            logger.warning("%s: no mask is there of %s", table, listing(absent))
        return known
    for path in beside:
        rows |= read_cines(path)
    return Known(cases, rows, files)


def _measured(
    masks: Path, labels: Labels, known: Known, basal_rule: BasalRule
) -> tuple[list[CineMeasures], list[str]]:
    """Every cine, and a line for each mask that is none or could not be measured."""
    found, problems = find_masks(files_by_case(masks), known)
    cines, others = join_cines(found)
    problems += others
    measured = []
    with progress("measured", len(cines)) as advance:
        for cine in cines:
            try:
                measured.append(measure_cine(cine, labels, basal_rule))
            except InputError as error:
                problems.append(f"cine {cine.name}: {error}")
            advance()
    return measured, problems


def _off_grid(cines: list[CineMeasures], masks: Path) -> list[str]:
    """A line for each cine whose masks do not lie on the grid of its image, by the headers of both."""
    lines = []
    for cine in cines:
        if cine.image is None:
            continue
        try:
            differences = read_geometry(masks / cine.mask).differences(read_geometry(Path(cine.image)))
        except InputError as error:
            differences = [str(error)]
        if differences:
            lines.append(
                f"{cine.cine}: the masks do not lie on the grid of their image: {'; '.join(differences)}"
            )
    return lines


def _write_dicom(record: MeasuresRecord, output: Path) -> list[str]:
    """Each cine as DICOM objects; a line for each that could not be written."""
    from utseg.measure.dicom import write_dicom  # highdicom takes a second to load

    problems = []
    with progress("DICOM", len(record.cines)) as advance:
        for cine in record.cines:
            try:
                write_dicom(cine, record.made, output)
            except UtsegError as error:
                problems.append(str(error))
            advance()
    return problems


def _record(
    cines: list[CineMeasures],
    masks: Path,
    labels: Labels,
    basal_rule: BasalRule,
    references: References | None,
) -> MeasuresRecord:
    record = read_record(masks)
    pairs, agreement = ((), {}) if references is None else compare(cines, references, basal_rule)
    if references is not None and (seen := seen_in_training(predicted_cases(masks), _names(cines))):
        logger.warning("%s", seen)
    return MeasuresRecord(
        made=Provenance(
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            versions=versions_of("utseg", "numpy"),
            masks=str(masks.absolute()),
            labels=dict(labels),
            models=record.models if record else (),
        ),
        rules={name: words for name, words in RULES.items() if name not in BASAL_RULES or name == basal_rule},
        cines=cines,
        distributions=distributions(cines),
        references=pairs,
        agreement=agreement,
    )


def _names(cines: list[CineMeasures]) -> list[str]:
    """The names of the masks, as `prediction.json` has them."""
    return [
        name.removesuffix(ending)
        for cine in cines
        for name in ([files.mask for files in cine.files] or [cine.mask])
        for ending in NIFTI_ENDINGS
        if name.endswith(ending)
    ]
