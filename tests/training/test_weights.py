"""Weights to start from: which files are read, what fits, what is refused."""

import numpy as np
import pytest
import torch
from networks.small import build_small
from safetensors.torch import save_file
from tiny_models import make_plan, make_run_folder
from tiny_runs import make_home, make_request

from trainers.utnet import recipe
from utseg.errors import ArtefactError, InputError
from utseg.networks.pretrained.official import export_official_state_dict
from utseg.planning.task import planned_task
from utseg.trainer import train_by_recipe
from utseg.training.prepare import read_initial
from utseg.training.record import read_run, read_weights
from utseg.training.weights import Entries, check_fit, fill, fit_weights, read_tensors, weights_file


def other(network):
    """The same names and shapes, other values."""
    return {n: torch.randn_like(v) if v.is_floating_point() else v for n, v in network.state_dict().items()}


def assert_filled(network, values):
    for name, value in values.items():
        assert torch.equal(network.state_dict()[name], value), name


@pytest.mark.parametrize("ending", ["safetensors", "npz", "pth"])
def test_a_state_dict_in_any_of_the_formats(ending, tmp_path):
    network = build_small("UNet")
    values, path = other(network), tmp_path / f"w.{ending}"
    if ending == "safetensors":
        save_file({n: v.contiguous() for n, v in values.items()}, path)
    elif ending == "npz":
        np.savez(path, **{n: v.numpy() for n, v in values.items()})
    else:
        torch.save({"epoch": 3, "state_dict": {f"module.{n}": v for n, v in values.items()}}, path)
    fit = fit_weights(network, read_tensors(path))
    assert not fit.mismatches
    fill(network, fit, path)
    assert_filled(network, values)


def test_the_official_utnet_is_a_published_format(tmp_path):
    network, path = build_small("UTNet"), tmp_path / "official.pth"
    values = other(network)
    torch.save(export_official_state_dict(network, values), path)
    fit = fit_weights(network, read_tensors(path))
    assert not fit.mismatches
    assert not fit.fresh
    fill(network, fit, path)
    assert_filled(network, values)


def test_what_does_not_fit_is_listed_and_refused_unless_asked(tmp_path, caplog):
    network = build_small("UNet", num_classes=4)
    values = other(build_small("UNet", num_classes=7))
    values["extra.weight"] = torch.zeros(3)
    del values["encoder.0.conv1.weight"]
    fit = fit_weights(network, values)
    with pytest.raises(InputError) as caught:
        check_fit(fit, tmp_path / "w.pth", "UNet", allow_mismatch=False)
    message = str(caught.value)
    for expected in (
        "1 missing: encoder.0.conv1.weight",
        "1 unknown: extra.weight",
        "heads.0.weight (7, 4, 1, 1) where (4, 4, 1, 1) is expected",
        "--allow-mismatch",
    ):
        assert expected in message
    check_fit(fit, tmp_path / "w.pth", "UNet", allow_mismatch=True)
    before = network.state_dict()["heads.0.weight"].clone()
    fill(network, fit, tmp_path / "w.pth")
    assert torch.equal(network.state_dict()["heads.0.weight"], before)
    assert_filled(network, fit.values)


def test_nothing_that_fits_is_refused_even_if_asked(tmp_path):
    fit = fit_weights(build_small("UNet"), {"something.else": torch.zeros(3)})
    with pytest.raises(InputError, match="no tensor fits network UNet"):
        check_fit(fit, tmp_path / "w.pth", "UNet", allow_mismatch=True)


def test_values_that_are_not_finite_are_refused(tmp_path):
    network = build_small("UNet")
    values = other(network)
    values["heads.0.weight"][0] = torch.nan
    with pytest.raises(ArtefactError, match=r"heads\.0\.weight has values that are not finite"):
        check_fit(fit_weights(network, values), tmp_path / "w.pth", "UNet", allow_mismatch=False)


class Hostile:
    """Would write a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_files_that_are_damaged_hostile_or_something_else(tmp_path):
    harmed = tmp_path / "harmed"
    cases = {"a.pth": b"\x00" * 100, "b.safetensors": b"nonsense", "c.npz": b"PK\x03\x04broken"}
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
    torch.save({"a": Hostile(harmed)}, tmp_path / "d.pth")
    np.savez(tmp_path / "e.npz", a=np.array([Hostile(harmed)], dtype=object))
    torch.save({"epoch": 3}, tmp_path / "f.pth")
    for name in (*cases, "d.pth", "e.npz", "f.pth"):
        with pytest.raises(ArtefactError, match=name.replace(".", r"\.")) as caught:
            read_tensors(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not harmed.exists()
    with pytest.raises(InputError, match="no such file"):
        weights_file(tmp_path / "missing.pth")


def test_a_run_starts_from_the_weights_of_another_and_records_them(tmp_path):
    home = make_home(tmp_path / "home")
    first = make_request(home, tmp_path / "first", model="UNet", epochs=1)
    train_by_recipe(first, recipe("UNet"))
    still = {"optimizer.learning_rate": 1e-12, "optimizer.weight_decay": 0}
    second = make_request(
        home, tmp_path / "second", model="UNet", epochs=1, seed=5, weights=first.output, settings=still
    )
    train_by_recipe(second, recipe("UNet"))
    initial = read_run(second.output).initial_weights
    assert initial is not None
    assert initial.file == "model.safetensors"
    before, after = read_weights(first.output), read_weights(second.output)
    assert initial.tensors == len(before)
    for name, value in before.items():
        if name.endswith("conv1.weight"):
            torch.testing.assert_close(after[name], value)
    assert read_run(first.output).initial_weights is None
    with pytest.raises(InputError, match="no such file"):
        train_by_recipe(
            make_request(home, tmp_path / "third", model="UNet", weights=tmp_path / "none.pth"),
            recipe("UNet"),
        )
    assert not (tmp_path / "third").exists()


THREE = {"channel_names": ("T1", "T2", "cine-MRI")}
NEIGHBOURS = {"configuration": "2.5d", "neighbour_distance_mm": 8.0}


TURNED = {"channel_names": ("t2", "cine-MRI", "T1")}


@pytest.mark.parametrize(
    ("theirs", "ours", "sources", "said"),
    [
        (THREE, TURNED, [1, 2, 0], "t2 = T2, cine-MRI = cine-MRI, T1 = T1"),
        (
            THREE,
            {"channel_names": ("LGE", "T2")},
            [None, 1],
            "new, as initialised: LGE; not taken over: T1, ",
        ),
        (
            THREE,
            NEIGHBOURS,
            [None, 2, None],
            "cine-MRI of the slice = cine-MRI; new, as initialised: cine-MRI of the slice before, cine-MRI of",
        ),
        (
            NEIGHBOURS,
            {"channel_names": ("cine-MRI", "T1")},
            [1, None],
            "cine-MRI = cine-MRI of the slice; new",
        ),
        (
            {},
            NEIGHBOURS,
            [None, 0, None],
            "cine-MRI of the slice = cine-MRI; new, as initialised: cine-MRI of",
        ),
        (THREE, THREE, [0, 1, 2], None),
        (NEIGHBOURS, NEIGHBOURS | {"channel_names": ("LGE",)}, [0, 1, 2], None),
        ({}, {"channel_names": ("LGE",)}, [0], None),
    ],
)
def test_inputs_of_weights_are_matched_by_channel_and_slice(theirs, ours, sources, said, tmp_path, caplog):
    weights, plan = make_run_folder(tmp_path, **theirs), make_plan(**ours)
    network = planned_task(plan).build()
    with caplog.at_level("INFO", "utseg"):
        _, fit, _ = read_initial(make_request(tmp_path, weights=weights), network, plan)
    assert ("inputs matched by name" in caplog.text) == bool(said)
    assert (said or "") in caplog.text
    before, given = {n: v.clone() for n, v in network.state_dict().items()}, read_weights(weights)
    fill(network, fit, weights)
    axes = planned_task(plan).input_axes()
    assert axes
    for name, value in network.state_dict().items():
        for place, source in enumerate(sources) if name in axes else ():
            (axis,) = axes[name]
            taken = before[name].select(axis, place) if source is None else given[name].select(axis, source)
            assert torch.equal(value.select(axis, place), taken), name
    assert_filled(network, {name: value for name, value in given.items() if name not in axes})


@pytest.mark.parametrize("names", [("T1", "T2", "LGE"), ("T1", "T2")])
def test_weights_of_networks_that_read_other_channels_are_refused_unless_asked(names, tmp_path, caplog):
    weights, plan = make_run_folder(tmp_path, **NEIGHBOURS), make_plan(channel_names=names)
    network = planned_task(plan).build("meta")
    with pytest.raises(
        InputError,
        match=r"reads cine-MRI of the slice before, .*, that of the plan T1, T2.*: none is the same",
    ):
        read_initial(make_request(tmp_path, weights=weights), network, plan)
    initial, fit, _ = read_initial(
        make_request(tmp_path, weights=weights, allow_mismatch=True), network, plan
    )
    left = {} if len(names) == 3 else planned_task(plan).input_axes()
    assert ("left as initialised" if left else "taken all the same") in caplog.text
    assert initial.tensors == len(fit.values)
    assert fit.values.keys() == network.state_dict().keys() - left.keys()


@pytest.mark.parametrize(("theirs", "ours"), [(("T1",), ("LGE", "T1", "T2")), (("LGE", "T1", "T2"), ("T1",))])
def test_a_single_input_that_a_network_repeats_is_one_entry(theirs, ours):
    """The ResNet50 sees a single channel three times; with the others 0, its first convolution answers the same."""
    one, three = (build_small("ResNet50_UNet", in_channels=len(names)) for names in (theirs, ours))
    entries = Entries(
        {"resnet.conv_root.weight": (1,)},
        [theirs.index(n) if n in theirs else None for n in ours],
        len(theirs),
    )
    root = next(name for name in one.state_dict() if name.endswith("conv_root.weight"))
    value = entries.place(one.state_dict()[root], 1, three.state_dict()[root].shape[1])
    summed = one.state_dict()[root].sum(1) if len(theirs) == 1 else one.state_dict()[root][:, 1]
    torch.testing.assert_close(value[:, 1] if len(ours) == 3 else value.sum(1), summed)
    assert len(ours) == 1 or not value[:, [0, 2]].any()


def test_an_output_that_has_entries_along_two_axes_is_known_where_both_are():
    """FCN upsamples each class into each."""
    network, values = build_small("FCN", num_classes=4), other(build_small("FCN", num_classes=3))
    fit = fit_weights(network, values, [Entries(network.class_axes(), [0, None, 2, 1], 3)])
    assert not fit.mismatches
    before = network.state_dict()["doubling.0.weight"].clone()
    fill(network, fit, "w.pth")
    after, theirs = network.state_dict()["doubling.0.weight"], values["doubling.0.weight"]
    for row, source in enumerate([0, None, 2, 1]):
        for column, other_source in enumerate([0, None, 2, 1]):
            is_known = None not in (source, other_source)
            taken = theirs[source, other_source] if is_known else before[row, column]
            assert torch.equal(after[row, column], taken)


@pytest.mark.parametrize(("inputs", "is_said"), [(THREE, True), (NEIGHBOURS, True), ({}, False)])
def test_what_the_inputs_of_unknown_weights_are_taken_as_is_said(inputs, is_said, tmp_path, caplog):
    plan = make_plan(**inputs)
    weights = make_run_folder(tmp_path, **inputs) / "model.safetensors"
    (weights.parent / "run.json").unlink()
    with caplog.at_level("INFO", "utseg"):
        read_initial(make_request(tmp_path, weights=weights), planned_task(plan).build("meta"), plan)
    assert ("nothing says what its input channels are" in caplog.text) == is_said
