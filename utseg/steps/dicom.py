"""What `predict` does for DICOM: a folder of it is imported on the way, and masks become DICOM Segmentation objects in its study."""

from collections.abc import Sequence
from pathlib import Path

from utseg.case import Case
from utseg.dicom.importing import import_dicom
from utseg.dicom.sources import OBJECTS_FOLDER, SOURCES_FOLDER, read_sources
from utseg.errors import InputError, UtsegError
from utseg.files import require_writable
from utseg.predict.record import PREDICTION_FILE, PredictionRecord
from utseg.progress import progress
from utseg.rawdata.gate import read_label_cine
from utseg.rawdata.names import mask_name
from utseg.settings import read_model

IMAGES_FOLDER = "images"


def import_on_the_way(
    folder: Path, output: Path, *, resume: bool, workers: int | None
) -> tuple[Path, tuple[str, ...]]:
    """`output`/images, into which the cines of a DICOM folder were written, and a line for each stack that was refused.

    resume: cines that an earlier run made of this folder are taken as they are. Raises InputError where others are there, and what
    `import_dicom` raises.
    """
    images = output / IMAGES_FOLDER
    names = [path.stem for path in sorted((images / SOURCES_FOLDER).glob("*.json"))]
    if not names:
        return images, import_dicom(folder, images, workers=workers).problems
    if not resume:
        raise InputError(
            f"{images}: cines of an earlier run are there; go on with them by --resume, or choose another folder with -o"
        )
    roots = {read_sources(images, name).root for name in names}
    if roots != {str(folder.absolute())}:
        raise InputError(
            f"{images}: holds cines of {', '.join(sorted(roots))}, not of {folder}; choose another folder with -o"
        )
    return images, ()


def write_segmentations(cases: Sequence[Case], output: Path) -> list[str]:
    """Writes `output`/dicom/CINE_seg.dcm for each imported cine whose mask is on record; returns a line for each that failed."""
    from utseg.dicom.derived import checked_sources
    from utseg.dicom.segmentation import write_segmentation  # highdicom takes a second to import

    record = read_model(PredictionRecord, output / PREDICTION_FILE)
    models = [use.name for use in record.models]
    folder, problems = output / OBJECTS_FOLDER, []
    require_writable(folder)
    predicted = [case for case in cases if case.case_id in record.cases]
    with progress("DICOM Segmentation", len(predicted)) as advance:
        for case in predicted:
            image, name = case.images[0], case.case_id
            try:
                mask_TZYX, geometry = read_label_cine(output / mask_name(name, image.name), record.labels)
                write_segmentation(
                    geometry.to_file(mask_TZYX),
                    record.labels,
                    checked_sources(image.parent, name),
                    folder / f"{name}_seg.dcm",
                    models=models,
                )
            except UtsegError as error:
                problems += [f"case {name}: {line}" for line in error.lines()]
            advance()
    return problems
