"""nnU-Net's own plan, 2-D training of so many iterations, and prediction, for `peer_datasets.py`, which starts this with nnU-Net's Python.

    PYTHON benchmarks/peer_datasets_peer.py Dataset001_Made IMAGES OUT '{"epochs": 10, "iterations_per_epoch": 20, "seed": 0}'

Plans and preprocesses the dataset where it is not yet, trains `nnUNetTrainer` on all of its cases, on one thread of the CPU, and segments
IMAGES into OUT as `nnUNetv2_predict` does, with mirroring. Nothing of it is changed but its length; its validation of the training cases
is left out. Its worker processes are forked, which saves the import of it in each.
"""

import json
import multiprocessing
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import (
    extract_fingerprints,
    plan_experiments,
    preprocess,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.run.run_training import get_trainer_from_args


def main() -> None:
    name, images, out, settings = sys.argv[1], sys.argv[2], Path(sys.argv[3]), json.loads(sys.argv[4])
    torch.set_num_threads(1)
    forked = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forked
    number = int(name[7:10])
    if not (Path(nnUNet_preprocessed) / name / "nnUNetPlans_2d").is_dir():
        extract_fingerprints([number], num_processes=1)
        plan_experiments([number])
        preprocess([number], configurations=("2d",), num_processes=(1,))
    os.environ.update(nnUNet_n_proc_DA="0")
    random.seed(settings["seed"])
    np.random.seed(settings["seed"])  # noqa: NPY002 (its loader draws from this one)
    torch.manual_seed(settings["seed"])
    trainer = get_trainer_from_args(name, "2d", "all", device=torch.device("cpu"))
    trainer.num_epochs = settings["epochs"]
    trainer.num_iterations_per_epoch = settings["iterations_per_epoch"]
    trainer.num_val_iterations_per_epoch = 1
    trainer.initialize()
    trainer.run_training()
    predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"))
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",))
    out.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(str(images), str(out))


if __name__ == "__main__":
    main()
