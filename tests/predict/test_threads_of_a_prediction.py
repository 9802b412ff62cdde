"""The threads of a prediction are those that each batch of windows was given, and they are on record."""

import json
from contextlib import contextmanager

import nibabel
import numpy as np
from tiny_models import band_model

from utseg.case import Case
from utseg.compute.threads import Threads
from utseg.inference import windows
from utseg.predict import pipeline
from utseg.predict.pipeline import predict_cases


def case_of(path, shape):
    image = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(image.T, np.diag([1.25, 1.25, 8.0, 1.0])), path)
    return Case(path.name.split(".")[0], "subject", (path,))


def test_the_record_has_the_threads_of_all_batches(tmp_path, monkeypatch):
    given = iter([2, 2, 1, 1, 1, 1, 2, 2])

    class Given(Threads):
        @contextmanager
        def timed(self, amount):
            yield next(given)

    monkeypatch.setattr(pipeline, "Threads", Given)
    monkeypatch.setattr(windows, "CPU_BATCH_PIXELS", 1)  # a batch a slice
    shapes = {"cine.nii.gz": (3, 2, 17, 20), "still.nii.gz": (2, 17, 20)}
    cases = [case_of(tmp_path / name, shape) for name, shape in shapes.items()]
    predict_cases(cases, [band_model()], tmp_path / "out")
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())["cases"]
    assert record["cine"]["threads"] == [[1, 2], [3, 1]]
    assert record["still"]["threads"] == [[1, 2]]
