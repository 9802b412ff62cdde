"""Every reader of strangers' files: sound files to begin with, how they are changed, and what has to hold of what is accepted."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from commandline import run_here
from dicom_studies import cine, short_axis
from made_measures import make_measures
from made_study import MadeStudy, write_study_folder
from PIL import Image
from pydantic import BaseModel
from rawfiles import LABELS, make_acdc, make_heart, make_mnms, make_nifti, make_nnunet
from tiny_runs import make_home

from attack import scenes
from attack.mutate import bytes_changed, gzip_changed, json_changed, safetensors_changed, zip_changed
from utseg.archive.reading import unpacked
from utseg.compute.pool import InlineExecutor
from utseg.dicom.headers import read_header
from utseg.dicom.pixels import _read_images
from utseg.dicom.reading import Unreadable, damage_named
from utseg.evaluate.records import read_metrics
from utseg.evaluate.sources import Sources
from utseg.fingerprint import make_fingerprint
from utseg.fingerprint.model import read_fingerprint, write_fingerprint
from utseg.measure.record import read_measures, write_measures
from utseg.measure.table import read_cines
from utseg.phantom.dicom import write_dicom_study
from utseg.planning.plan import read_plan
from utseg.predict.ensemble import read_probabilities
from utseg.predict.record import PredictionRecord
from utseg.preprocess.slices import SliceStore
from utseg.preprocess.splits import read_splits
from utseg.rawdata import open_dataset
from utseg.rawdata.gate import read_image, read_label
from utseg.report.entries import read_scores
from utseg.settings import read_model
from utseg.study.definition import builtin_names, definition_text, read_definition
from utseg.study.images import read_images
from utseg.study.record import read_study
from utseg.training.checkpoint import load, save_latest
from utseg.training.record import read_run, read_weights
from utseg.training.weights import read_tensors

SLICE = "s00_ED"
Change = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Reader:
    """`read` gets the path of a changed file and asserts what has to hold. `place`: the file to be changed within a folder `base`.

    base: copied once; the changed file is put into it. others: further sound contents of the same file.
    """

    base: Path
    place: str
    change: Change
    read: Callable[[Path], object]
    others: tuple[bytes, ...] = ()

    @property
    def originals(self) -> tuple[bytes, ...]:
        return ((self.base / self.place).read_bytes(), *self.others)


def make_readers(folder: Path, shared: Path | None = None, *rooms: str) -> dict[str, Reader]:
    """Those of some rooms, or all, by name, with their sound files below `folder`; `shared` has real scans."""
    made = {
        "images": partial(_images, shared),
        "datasets": _datasets,
        "runs": _runs,
        "predictions": _predictions,
        "records": _records,
        "dicom": partial(_dicom, shared),
    }
    return {name: reader for room in rooms or made for name, reader in made[room](folder / room).items()}


def _image_is_right(path: Path) -> None:
    image, geometry = read_image(path)
    assert image.dtype == np.float32 and image.shape == geometry.size_zyx and np.isfinite(image).all()
    assert all(0 < mm < 1e5 for mm in geometry.spacing_zyx_mm)


def _label_is_right(path: Path) -> None:
    label, geometry = read_label(path, LABELS)
    assert label.dtype == np.uint8 and label.shape == geometry.size_zyx
    assert set(np.unique(label)) <= set(LABELS.values())


def _images(shared: Path | None, folder: Path) -> dict[str, Reader]:
    image, label = make_heart((5, 14, 12))
    for name, voxels in (("image.nii", image), ("label.nii", label)):
        make_nifti(folder / name, voxels)
    later = make_nifti(folder / "later.nii", image.astype(np.float32), version=2, order=">")
    packed, labelled = make_nifti(folder / "image.nii.gz", image), make_nifti(folder / "label.nii.gz", label)
    real = sorted((shared / "data" / "raw").rglob("*frame01.nii.gz"))[:1] if shared else []
    for name, pages in (("p.png", 1), ("p.tif", 3), ("p.bmp", 1)):
        first, *rest = [Image.fromarray(label[page]) for page in range(1, 1 + pages)]
        first.save(folder / name, **({"save_all": True, "append_images": rest} if rest else {}))
    of = partial(Reader, folder)
    return {
        "nifti": of("image.nii", bytes_changed, _image_is_right, (later.read_bytes(),)),
        "nifti_gz": of(packed.name, gzip_changed, _image_is_right, tuple(path.read_bytes() for path in real)),
        "nifti_label": of(labelled.name, gzip_changed, _label_is_right),
        "nifti_plain_label": of("label.nii", bytes_changed, _label_is_right),
        **{kind: of(f"p.{kind}", bytes_changed, _image_is_right) for kind in ("png", "tif", "bmp")},
        "png_label": of("p.png", bytes_changed, _label_is_right),
    }


def _dataset_is_right(levels: int, path: Path) -> None:
    dataset = open_dataset(path.parents[levels])
    assert all(case.case_id and case.subject and case.images for case in dataset.cases)
    assert len({case.case_id for case in dataset.cases}) == len(dataset.cases)


def _datasets(folder: Path) -> dict[str, Reader]:
    small = (3, 12, 10)
    nnunet = make_nnunet(folder / "nnunet", subjects=2, size_zyx=small)
    mnms, acdc = (
        make(folder / name, subjects=2, size_zyx=small)
        for make, name in ((make_mnms, "mnms"), (make_acdc, "acdc"))
    )
    table = next(mnms.glob("*.csv")).name
    older = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "LV"}, "numTraining": 1}
    older["training"] = [{"image": "./imagesTr/s00_ED.nii.gz", "label": "./labelsTr/s00_ED.nii.gz"}]
    root, deep = partial(_dataset_is_right, 0), partial(_dataset_is_right, 2)
    info = "training/patient001/Info.cfg"
    return {
        "dataset_json": Reader(nnunet, "dataset.json", json_changed, root, (json.dumps(older).encode(),)),
        "cases_csv": Reader(nnunet, "cases.csv", bytes_changed, root),
        "mnms_csv": Reader(mnms, table, bytes_changed, root),
        "info_cfg": Reader(acdc, info, bytes_changed, deep),
    }


def _folder(read: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: read(path.parent)


def _record(model: type[BaseModel]) -> Callable[[Path], object]:
    return lambda path: read_model(model, path)


def _slice_is_right(path: Path) -> None:
    store = SliceStore(path.parents[2])
    image, label = store.read_slice(path.parent.name, int(path.stem.strip("z")))
    assert image.dtype == np.float32 and label.dtype == np.uint8 and image.shape[1:] == label.shape


def _runs(folder: Path) -> dict[str, Reader]:
    home = make_home(folder)
    preprocessed = home / "preprocessed" / "Tiny"
    plans = preprocessed / "tiny_2d"
    dataset = open_dataset(home / "raw" / "Tiny")
    with InlineExecutor() as executor:
        write_fingerprint(make_fingerprint(dataset, executor), preprocessed / "fingerprint.json")
    record = next((plans / "slices").glob("*/case.json"))
    part = sorted(record.parent.glob("*.npz"))[0]
    weights = {"a.weight": torch.ones(4, 3), "a.bias": torch.zeros(4)}
    torch.save(weights, folder / "w.pt")
    np.savez(folder / "w.npz", **{name: value.numpy() for name, value in weights.items()})
    save_latest({"epoch": 3, "weights": weights, "seen": [1, 2.5, "x", None]}, folder)
    case = lambda path: SliceStore(path.parents[2]).case_record(path.parent.name)  # noqa: E731
    return {
        "plan_json": Reader(preprocessed, f"{plans.name}/plan.json", json_changed, _folder(read_plan)),
        "splits_json": Reader(preprocessed, "splits.json", json_changed, _folder(read_splits)),
        "fingerprint_json": Reader(preprocessed, "fingerprint.json", json_changed, read_fingerprint),
        "case_json": Reader(plans, str(record.relative_to(plans)), json_changed, case),
        "slice_npz": Reader(plans, str(part.relative_to(plans)), zip_changed, _slice_is_right),
        "weights_pt": Reader(folder, "w.pt", zip_changed, read_tensors),
        "weights_npz": Reader(folder, "w.npz", zip_changed, read_tensors),
        "checkpoint": Reader(folder, "checkpoint_latest.pt", zip_changed, load),
    }


def _probabilities_are_right(path: Path) -> None:
    probabilities, geometry = read_probabilities(path)
    assert probabilities.ndim == 4 and probabilities.dtype == np.float32
    assert probabilities.shape[1:] == geometry.size_zyx


def _archive_is_right(path: Path) -> None:
    with unpacked(path) as (_, runs):
        assert runs and all((run / "model.safetensors").is_file() for run in runs)


def _predictions(folder: Path) -> dict[str, Reader]:
    folder.mkdir(parents=True)
    scenes._archive(folder)
    result = run_here("utseg_predict", *scenes._predict_words(folder))
    assert result.returncode == 0, result.stderr
    run = next(folder.glob("results/*/*/*/fold0"))
    of = partial(Reader, run)
    return {
        "run_json": of("run.json", json_changed, _folder(read_run)),
        "model_safetensors": of("model.safetensors", safetensors_changed, _folder(read_weights)),
        "weights_safetensors": of("model.safetensors", safetensors_changed, read_tensors),
        "prediction_json": Reader(folder / "out", "prediction.json", json_changed, _record(PredictionRecord)),
        "probabilities_npz": Reader(folder / "out", "p0.npz", zip_changed, _probabilities_are_right),
        "archive": Reader(folder, "m.zip", zip_changed, _archive_is_right),
    }


def _records(folder: Path) -> dict[str, Reader]:
    folder.mkdir(parents=True)
    scenes._scored(folder)
    write_measures(make_measures(folder, 3), folder)
    study = write_study_folder(folder / "study", MadeStudy(per_vendor=1, vendors="AB"))
    (folder / "tiny.toml").write_text(scenes.STUDY)
    (folder / "cines.csv").write_text(
        "cine,subject,vendor,heart_rate_bpm,height_m,weight_kg\nA_sa,S1,X,60,1.8,80\n"
    )
    (folder / "images.csv").write_text("dataset,case,subject,checksum,mean,sd\nMnM,a,b,00ff,1.5,2\n")
    scores = folder / "scores"
    built_in = tuple(definition_text(name)[1].encode() for name in builtin_names())
    return {
        "metrics_csv": Reader(scores, "metrics.csv", bytes_changed, read_metrics),
        "summary_json": Reader(scores, "summary.json", json_changed, _folder(read_scores)),
        "sources_json": Reader(scores, "sources.json", json_changed, _record(Sources)),
        "measures_json": Reader(folder, "measures.json", json_changed, _folder(read_measures)),
        "study_json": Reader(study, "study.json", json_changed, _folder(read_study)),
        "study_toml": Reader(
            folder, "tiny.toml", bytes_changed, lambda path: read_definition(str(path)), built_in
        ),
        "cines_csv": Reader(folder, "cines.csv", bytes_changed, read_cines),
        "images_csv": Reader(folder, "images.csv", bytes_changed, read_images),
    }


def _pixels_are_right(path: Path) -> None:
    header = read_header(path)
    if header is None or not header.frames:
        raise Unreadable("holds no image")
    assert all(np.isfinite(frame.position).all() and min(frame.spacing) > 0 for frame in header.frames)
    with damage_named():
        for pixels, _ in _read_images(path, [frame.number for frame in header.frames], header.size):
            assert pixels.shape == header.size


def _dicom(shared: Path | None, folder: Path) -> dict[str, Reader]:
    paths = write_dicom_study(folder, cine(1, 2), short_axis(), extras=False)
    (one,) = write_dicom_study(folder / "enhanced", cine(2, 2), short_axis(), extras=False, layout="enhanced")
    real = (
        [path for path in sorted((shared / "data" / "dicom").rglob("*")) if path.is_file()] if shared else []
    )
    real = [path for path in real if path.stat().st_size < 400_000 and path.suffix != ".txt"][:2]
    more = tuple(path.read_bytes() for path in (one, *real))
    change = partial(bytes_changed, begin=128)
    of = partial(Reader, paths[0].parent, paths[0].name)
    return {
        "dicom_header": of(change, read_header, more),
        "dicom_pixels": of(change, _pixels_are_right, more),
    }
