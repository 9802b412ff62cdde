"""Every plan of every planner: valid, explained, within the memory, and accepted by the network."""

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import fingerprints, formula_memory, hearts, make_case, make_fingerprint_of

from planners import auto, capacity, cpu, published
from planners.neighbours import neighbour_distance
from utseg.errors import InputError
from utseg.fingerprint import Fingerprint
from utseg.planning import memory
from utseg.planning.memory import StepKind, forward_gmac, training_memory
from utseg.planning.plan import IDENTITY_KEYS, Plan
from utseg.planning.target import Target
from utseg.planning.task import planned_task
from utseg.settings import setting_keys

FITTING = {"auto": auto.plan, "cpu": cpu.plan}


@pytest.fixture(autouse=True, scope="module")
def formula() -> Iterator[None]:
    """Memory and compute by formula, so that many plans are made in little time. What `counted` is given to counts for real."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (capacity, memory):
            patch.setattr(module, "training_memory", formula_memory)
        patch.setattr(cpu, "forward_gmac", lambda task: task.patch_size[0] * task.patch_size[1] * 6e-5)
        yield


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (capacity, memory):
        monkeypatch.setattr(module, "training_memory", training_memory)
    monkeypatch.setattr(cpu, "forward_gmac", forward_gmac)


def planned_keys(plan: Plan) -> list[str]:
    keys = [key for key in setting_keys(Plan) if key not in IDENTITY_KEYS]
    return sorted([*keys, *(f"network.{key}" for key in plan.network)])


def value_of(plan: Plan, key: str) -> Any:
    value: Any = plan
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def check(plan: Plan, memory_gb: float) -> None:
    network = plan.network
    assert all(side % 2 ** network["levels"] == 0 for side in plan.patch_size)
    assert min(plan.patch_size) // 2 ** network["levels"] >= 5
    assert plan.estimated_memory_gb <= memory_gb
    assert plan.network["block_list"], "UTNet without attention is not UTNet"
    assert all(
        1 <= level <= network["levels"] and min(plan.patch_size) // 2**level >= network["reduce_size"]
        for level in network["block_list"]
    )
    assert network["reduce_size"] in (4, 8, 12, 16)
    assert 2 <= plan.batch_size <= 32
    assert plan.preprocessing.clip_percentiles[0] < 50 < plan.preprocessing.clip_percentiles[1]
    low, high = plan.augmentation.scale_range
    assert 0.7 <= low < 1 < high <= 1.4
    check_reasons(plan)


def check_reasons(plan: Plan) -> None:
    """Each planned key has a reason, and the reason shows the value itself."""
    assert sorted(plan.reasons) == planned_keys(plan)
    for key in plan.reasons:
        value, reason = value_of(plan, key), plan.reasons[key]
        figures = value if isinstance(value, tuple | list) else (value,)
        for figure in figures:
            shown = (
                f"{figure:g}"
                if isinstance(figure, float | int) and not isinstance(figure, bool)
                else str(figure)
            )
            if not (key.startswith("augmentation") and shown in ("0", "-0.3")):
                assert shown in reason.replace(",", " "), (key, shown, reason)
        assert "\n" not in reason


@settings(max_examples=30, deadline=None)
@given(fingerprint=fingerprints(), memory_gb=st.sampled_from([1.0, 2.0, 4.0, 8.0, 24.0, 80.0]))
@pytest.mark.parametrize("planner", FITTING)
def test_any_dataset_gets_a_valid_plan(planner: str, fingerprint: Fingerprint, memory_gb: float):
    try:
        plan = FITTING[planner](fingerprint, Target(memory_gb))
    except InputError as error:
        assert re.search(r"needs \d+\.\d GB .*raise --memory-gb", str(error))
        return
    check(plan, memory_gb)
    native = [case.spacing_zyx_mm[1:] for case in fingerprint.cases]
    for axis in (0, 1):
        assert plan.preprocessing.spacing_yx_mm[axis] >= 0.99 * min(min(pair) for pair in native)
        assert plan.preprocessing.spacing_yx_mm[axis] <= 2.01 * max(max(pair) for pair in native)


@settings(max_examples=12, deadline=None)
@given(fingerprint=fingerprints())
@pytest.mark.parametrize("planner", FITTING)
def test_more_memory_never_gives_less(planner: str, fingerprint: Fingerprint):
    views: list[tuple[int, int, int]] = []
    for memory_gb in (0.05, 0.1, 0.3, 0.7, 1.5, 3.0, 6.0, 12.0, 40.0):
        try:
            plan = FITTING[planner](fingerprint, Target(memory_gb))
        except InputError:
            assert not views, "what fitted less memory must fit more"
            continue
        height, width = plan.patch_size
        views.append((plan.network["base_channels"], height * width, plan.batch_size))
    assert all(all(a <= b for a, b in zip(less, more, strict=True)) for less, more in pairwise(views))


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("planner", "memory_gb"), [("auto", 1.0), ("auto", 8.0), ("cpu", 8.0)])
def test_counted_memory_is_kept_to_and_the_network_can_be_built(planner: str, memory_gb: float):
    plan = FITTING[planner](hearts(), Target(memory_gb))
    check(plan, memory_gb)
    task = planned_task(plan)
    assert plan.estimated_memory_gb == pytest.approx(training_memory(task, StepKind()).total_gb, abs=1e-3)
    logits = task.build("meta")(torch.empty(2, 1, *plan.patch_size, device="meta"))
    assert logits[0].shape == (2, plan.num_classes, *plan.patch_size)


def test_too_little_memory_is_a_clear_error():
    with pytest.raises(
        InputError, match=r"Synthetic: the smallest sensible plan \(patch .* 8 channels, batch 2\) needs"
    ):
        auto.plan(hearts(), Target(0.02))


def test_the_published_recipe_stays_what_it_is(caplog: pytest.LogCaptureFixture):
    for fingerprint in (hearts(), hearts(size_yx=(50, 35), spacing_yx_mm=(1.0, 1.0), foreground_mm=30.0)):
        plan = published.plan(fingerprint, Target(40))
        assert plan.preprocessing.spacing_yx_mm == (1.2, 1.2)
        assert plan.preprocessing.clip_percentiles == (5, 98)
        assert (plan.patch_size, plan.batch_size, plan.epochs) == ((256, 256), 32, 150)
        assert plan.network["block_list"] == [1, 2, 3, 4]
        assert (plan.network["num_blocks"], plan.network["num_heads"]) == ([1, 1, 1, 1], [4, 4, 4, 4])
        assert (plan.network["base_channels"], plan.network["reduce_size"], plan.network["levels"]) == (
            32,
            8,
            4,
        )
        assert sorted(plan.reasons) == planned_keys(plan)
        assert "MICCAI 2021" in plan.reasons["preprocessing.spacing_yx_mm"]
    assert not caplog.records


def test_the_published_recipe_says_when_it_does_not_fit(caplog: pytest.LogCaptureFixture):
    plan = published.plan(hearts(), Target(8))
    assert plan.batch_size == 32
    assert plan.estimated_memory_gb > 8
    for key in ("batch_size", "estimated_memory_gb"):
        assert "more than the 8 GB asked for" in plan.reasons[key]
    assert "more than the 8 GB" in caplog.text


def test_a_cardiac_cohort_gets_a_sensible_plan():
    plan = auto.plan(hearts(), Target(24))
    assert plan.preprocessing.spacing_yx_mm == (1.4, 1.4)
    assert plan.patch_size == (192, 192)
    assert plan.network["block_list"] == [1, 2, 3, 4]
    assert (plan.network["levels"], plan.network["base_channels"], plan.network["reduce_size"]) == (4, 32, 8)


@pytest.mark.parametrize(("planner", "short"), [(auto, False), (cpu, True), (published, False)])
def test_what_pays_in_minutes_is_planned_by_cpu_alone(planner, short):
    plan = planner.plan(hearts(), Target(24))
    assert (plan.orthogonal_updates, plan.initial_foreground > 0) == (short, short)


def test_small_crops_get_a_small_patch_and_fewer_levels():
    crops = hearts(
        size_yx=(51, 35),
        spacing_yx_mm=(1.0, 1.0),
        structures_mm={"a": 13.0, "p": 10.0},
        foreground_mm=43.0,
        thickness_share=0.55,
    )
    for planner in FITTING.values():
        plan = planner(crops, Target(8))
        assert plan.patch_size == (56, 40)
        assert plan.network["levels"] == 3
        assert (plan.network["block_list"], plan.network["reduce_size"]) == ([1, 2], 8)
        assert plan.preprocessing.spacing_yx_mm == (1.0, 1.0)


def test_two_subjects_are_enough():
    few = make_fingerprint_of(
        [
            make_case(
                number,
                size_yx=(256, 256),
                spacing_yx_mm=(1.3, 1.3),
                structures_mm={"LV": 40.0},
                foreground_mm=90.0,
            )
            for number in range(4)
        ]
    )
    for planner in FITTING.values():
        check(planner(few, Target(8)), 8)


def test_labels_that_nobody_has_do_not_stop_planning():
    empty = make_fingerprint_of(
        [
            make_case(
                number, size_yx=(128, 128), spacing_yx_mm=(1.5, 1.5), structures_mm={}, foreground_mm=0.0
            )
            for number in range(4)
        ]
    )
    for planner in FITTING.values():
        check(planner(empty, Target(8)), 8)


@pytest.mark.parametrize("planner", [auto, cpu, published])
def test_neighbouring_slices_are_planned_with_reasons(planner, monkeypatch):
    monkeypatch.setattr(published, "training_memory", formula_memory)
    flat, deep = (planner.plan(hearts(), Target(24, each)) for each in ("2d", "2.5d"))
    for plan in (flat, deep):
        assert sorted(plan.reasons) == planned_keys(plan)
    assert (flat.neighbour_distance_mm, flat.in_channels, flat.folder_name) == (None, 1, f"{flat.planner}_2d")
    assert (deep.neighbour_distance_mm, deep.in_channels, deep.folder_name) == (8, 3, f"{flat.planner}_2.5d")
    assert deep.augmentation.mirror_axes == ("z", *flat.augmentation.mirror_axes)
    assert deep.preprocessing == flat.preprocessing, "slices on disk are the same"
    assert "median of" in deep.reasons["neighbour_distance_mm"]
    assert "its last slice is repeated" in deep.reasons["neighbour_distance_mm"]
    assert planned_task(deep).build("meta")(torch.empty(1, 3, 64, 64, device="meta"))[0].shape[0] == 1


def test_single_slices_have_no_distance_to_a_neighbour():
    cases = list(hearts().cases)
    single = [
        case.model_copy(update={"size_zyx": (1, *case.size_zyx[1:]), "spacing_zyx_mm": (1.0, 1.4, 1.4)})
        for case in cases
    ]
    mixed = neighbour_distance(make_fingerprint_of([*single, *cases[:5]]))
    assert mixed.value == 8 and "median of 5 cases (20 of a single slice left out)" in mixed.reason
    with pytest.raises(InputError, match="each training case is a single slice; plan it with -c 2d"):
        neighbour_distance(make_fingerprint_of(single))
