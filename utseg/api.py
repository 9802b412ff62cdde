"""Everything that the commands do, as functions with the commands' names; `load_model` for arrays. docs/python.md has examples."""

from utseg.archive import Terms, export_model, import_model
from utseg.dicom.importing import import_dicom
from utseg.evaluate import Definition as ScoreDefinition
from utseg.phantom.cohort import make_phantom
from utseg.phantom.examination import PhantomSettings
from utseg.predict.ensemble import ensemble_folders as ensemble
from utseg.predict.model import choose_runs
from utseg.steps.choice import ModelChoice, chosen_models
from utseg.steps.datasets import raw_dataset
from utseg.steps.measuring import measure
from utseg.steps.model import Predictor, load_model
from utseg.steps.planning import plan_and_preprocess
from utseg.steps.prediction import predict
from utseg.steps.reporting import report
from utseg.steps.scoring import evaluate
from utseg.steps.selecting import find_best_configuration
from utseg.steps.studies import study
from utseg.steps.surveying import networks
from utseg.steps.training import train
from utseg.study.definition import Definition as StudyDefinition

__all__ = [
    "ModelChoice",
    "PhantomSettings",
    "Predictor",
    "ScoreDefinition",
    "StudyDefinition",
    "Terms",
    "choose_runs",
    "chosen_models",
    "ensemble",
    "evaluate",
    "export_model",
    "find_best_configuration",
    "import_dicom",
    "import_model",
    "load_model",
    "make_phantom",
    "measure",
    "networks",
    "plan_and_preprocess",
    "predict",
    "raw_dataset",
    "report",
    "study",
    "train",
]
