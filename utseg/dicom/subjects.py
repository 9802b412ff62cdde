"""Codes in place of patients: who is S001 stands in a map that is written only where it is asked for.

Names, birth dates, ids, dates and accession numbers go no further than this module.
"""

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path

from utseg.dicom.headers import FileHeader
from utseg.errors import InputError
from utseg.files import atomic_path

LEAST_DIGITS = 3
SHORTEST_NAME = 3  # letters of a part of a name that is looked for within words
# Dates (birth, study) however they are written, and numbers as archives give them to patients and examinations.
NUMBERS = re.compile(r"\d{6,}|(?<!\d)(?:\d{1,2}[-./]\d{1,2}[-./]\d{2,4}|\d{4}[-./]\d{1,2}[-./]\d{1,2})(?!\d)")
LONGEST_TEXT = 64
FORMULA = "=+-@"  # a spreadsheet would calculate what begins so


def subject_codes(headers: Iterable[FileHeader]) -> dict[str, str]:
    """A code for each patient, in the order of their ids: the same files give the same codes."""
    patients = sorted({header.patient for header in headers})
    digits = max(LEAST_DIGITS, len(str(len(patients))))
    return {patient: f"S{number:0{digits}d}" for number, patient in enumerate(patients, 1)}


def free_text(text: str, header: FileHeader) -> str:
    """What a person typed at the scanner, without the patient's name, ids, dates and long numbers, short enough for a table's cell.

    Parts of a name go with and without accents; those of one or two Latin letters only where they stand alone.
    """
    known = [word for word in re.split(r"[\W_]+", header.text("PatientName")) if word]
    known += [header.text("PatientID")] if header.text("PatientID") else []
    known += [_without_accents(word) for word in known]
    for word in sorted(set(known), key=len, reverse=True):
        alone = r"(?<![^\W_]){}(?![^\W_])" if len(word) < SHORTEST_NAME and word.isascii() else "{}"
        text = re.sub(alone.format(re.escape(word)), "…", text, flags=re.IGNORECASE)
    return NUMBERS.sub("…", text).lstrip(FORMULA + " ")[:LONGEST_TEXT]


def _without_accents(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


def check_codes_path(path: Path, folder: Path, output: Path) -> None:
    """Refuses a map that would lie in the DICOM folder or in that of cines, which go on to others. Raises InputError."""
    if output.resolve() in path.resolve().parents:
        raise InputError(
            f"{path}: the map of codes and patients would lie in {output}, which has none of them; name a file elsewhere"
        )
    if folder.resolve() in path.resolve().parents:
        raise InputError(
            f"{path}: the map of codes and patients would lie in the DICOM folder {folder}; name a file elsewhere"
        )
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path.absolute().parent}: no such folder; make it first")


def check_codes(path: Path, codes: Mapping[str, str]) -> None:
    """Refuses a map that is there already, but for the very same one, which an import that was stopped leaves. Raises InputError."""
    if path.exists() and not (path.is_file() and path.read_bytes() == _map_of(codes)):
        raise InputError(f"{path}: is there already; name a new file with --codes")


def write_codes(path: Path, codes: Mapping[str, str]) -> None:
    """Writes the map of codes and patient ids, which only its owner may read."""
    with atomic_path(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(_map_of(codes))


def _map_of(codes: Mapping[str, str]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["subject", "patient_id"])
    rows.writerows([code, patient] for patient, code in codes.items())
    return text.getvalue().encode()
