"""The whole training and prediction step of networks on tensors that claim to be on a GPU: see `fake_cuda.py`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
NETWORKS = ("UNet", "UTNet")  # all of them take half a minute: see benchmarks/README.md
PINNED = 4  # image and label where they are made, and again in the step: fake tensors cannot tell


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the script prints."""
    if torch.backends.cuda.is_built():
        pytest.skip("this build of torch has a GPU's own guards; on a GPU, benchmarks/gpu.sh shows more")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("without g++ this build of torch cannot claim to have a GPU")
    torch_folder = Path(torch.__file__).parent
    libraries, library = torch_folder / "lib", tmp_path_factory.mktemp("fake_cuda") / "fake_cuda.so"
    links = (f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch_cpu", "-lc10")
    options = ("-std=c++20", "-O0", "-shared", "-fPIC", f"-I{torch_folder / 'include'}")
    subprocess.run([compiler, *options, HERE / "fake_cuda.cpp", *links, "-o", library], check=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LD_PRELOAD": str(library)}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), *sys.path])
    done = subprocess.run(
        [sys.executable, HERE / "fake_cuda.py", *NETWORKS],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_step_mixes_no_devices_and_waits_once(found, name):
    """Once: for the loss and the norm, before any weight changes."""
    assert found[f"{name} training"] == {"reads": 1, "to_host": 0, "pinned": PINNED}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_prediction_step_mixes_no_devices_and_fetches_what_it_gives(found, name):
    """Probabilities and agreement, of windows and their shares."""
    assert found[f"{name} prediction"] == {"to_host": 2, "pinned": 2}


def test_turned_views_bring_what_they_saw_of_each_pixel(found):
    assert found["turned"] == {"to_host": 2, "pinned": 5}


def test_a_float16_step_scales_unscales_and_clips_on_the_gpu(found):
    assert found["float16"] == {"reads": 1, "to_host": 0, "pinned": PINNED}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("a tensor of the CPU", "found at least two devices, cuda:0 and cpu"),
        ("item", "DataDependentOutputException"),
        ("bool", "DataDependentOutputException"),
        ("nonzero", "DynamicOutputShapeException"),
    ],
)
def test_a_planted_fault_is_found(found, fault, said):
    assert said in found[f"fault {fault}"]["error"]


def test_a_planted_copy_to_the_host_is_counted(found):
    assert found["fault cpu"]["to_host"] == 1
