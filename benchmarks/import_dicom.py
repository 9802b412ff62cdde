"""Time and memory of `utseg_import_dicom` on many small files, as a CD holds them.

    python benchmarks/import_dicom.py [--files 3000] [--matrix 64] [-np 2]

The files are those of a phantom: studies of 12 slices × 25 phases in a series a slice, without endings, in random order.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from utseg.dicom.importing import import_dicom
from utseg.phantom.dicom import Patient, write_dicom_study

FRAMES, SLICES = 25, 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--matrix", type=int, default=64)
    parser.add_argument("-np", type=int, default=None)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr([[-0.74, -0.35, 0.58], [0.0, -0.86, -0.51], [0.68, -0.37, 0.63]])[0] * [
        1.4,
        1.4,
        10,
    ]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        for number in range(-(-arguments.files // (FRAMES * SLICES))):
            shape = (FRAMES, SLICES, arguments.matrix, arguments.matrix)
            image = rng.integers(0, 1000, shape).astype(np.int16)
            patient = Patient(patient_id=str(number))
            write_dicom_study(folder / str(number), image, affine, patient=patient, extras=False)
        files = sum(1 for path in folder.rglob("*") if path.is_file())
        start, cpu = time.perf_counter(), cpu_s()
        record = import_dicom(folder, Path(place) / "out", workers=arguments.np)
        seconds, cpu = time.perf_counter() - start, cpu_s() - cpu
    kilobytes = max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{files} files, {len(record.cines)} cines: {seconds:.1f} s, {cpu:.1f} s of CPU; largest process {kilobytes / 1024:.0f} MiB"
    )


def cpu_s() -> float:
    """Seconds of CPU of this process and of those that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()
