"""Single rules against figures made for them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import formula_memory, hearts, make_case, make_fingerprint_of

from planners import capacity, cpu
from planners.augmentation import foreground_fraction, histogram_probability, mirror_axes, rotation_deg
from planners.geometry import native_spacing, patch_shape, smallest_structure, wished_patch
from planners.intensity import channel_normalisation, clip_percentiles
from planners.schedule import epochs, iterations_per_epoch
from planners.windows import planned_windows
from utseg.fingerprint import Fingerprint
from utseg.networks.utnet_planning import plan_attention
from utseg.planning import memory
from utseg.planning.target import Target
from utseg.planning.ways import training_ways

HEART = {"size_yx": (256, 256), "structures_mm": {"LV": 40.0}, "foreground_mm": 100.0}


def spaced(*groups: tuple[str, int, float]) -> Fingerprint:
    """Vendors with so many cases of such a spacing."""
    rows = [(vendor, spacing) for vendor, count, spacing in groups for _ in range(count)]
    return make_fingerprint_of(
        [
            make_case(number, spacing_yx_mm=(spacing, spacing), vendor=vendor, **HEART)
            for number, (vendor, spacing) in enumerate(rows)
        ]
    )


def test_a_large_vendor_does_not_decide_the_spacing_alone():
    decided = native_spacing(spaced(("A", 60, 1.2), ("B", 10, 1.4), ("C", 10, 1.5)))
    assert decided.value == (1.4, 1.4)
    assert "A, B, C counting alike" in decided.reason
    assert "1.2 … 1.5 mm" in decided.reason


def test_an_outlier_does_not_move_the_spacing():
    assert native_spacing(spaced(("A", 20, 1.25), ("A", 2, 9.0))).value == (1.25, 1.25)


def test_oblong_pixels_keep_their_shape():
    oblong = make_fingerprint_of([make_case(0, spacing_yx_mm=(0.6, 3.0), **HEART)])
    assert native_spacing(oblong).value == (0.6, 3.0)


@given(st.tuples(st.floats(3, 700), st.floats(3, 700)))
def test_patches_cover_the_wish_and_divide(wish: tuple[float, float]):
    patch = patch_shape(wish)
    assert all(side % 2**patch.levels == 0 for side in patch.size)
    assert all(got >= 0.95 * wanted - 1e-6 for got, wanted in zip(patch.size, wish, strict=True))
    assert min(patch.size) // 2**patch.levels >= 5
    assert patch.levels == 4 or min(wish) < 5 * 2 ** (patch.levels + 1)


def test_a_patch_is_never_larger_than_the_typical_image():
    wish = wished_patch(hearts(foreground_mm=400.0), (1.4, 1.4), margin=2.5, least_margin=1.25)
    assert wish.wish_px == pytest.approx((256, 216))


@pytest.mark.parametrize(
    ("diameter", "reduce_size", "levels"),
    [(90.0, 4, (1, 2, 3, 4)), (45.0, 8, (1, 2, 3, 4)), (30.0, 12, (1, 2, 3, 4)), (3.0, 16, (1, 2, 3, 4))],
)
def test_key_value_cells_follow_the_structures(diameter: float, reduce_size: int, levels: tuple[int, ...]):
    structure = smallest_structure(hearts(structures_mm={"LV": diameter, "RV": 95.0}))
    planned = plan_attention((256, 256), (1.25, 1.25), 4, 32, structure, long_training=True)
    assert planned["reduce_size"][0] == reduce_size
    assert planned["block_list"][0] == levels
    assert f"{diameter:.1f} mm" in planned["reduce_size"][1]
    assert f"{320 / reduce_size:.1f} mm" in planned["reduce_size"][1]


def test_attention_stays_where_maps_are_fine_enough():
    planned = plan_attention((112, 96), (1.0, 1.0), 4, 32, ("LV", 10.0), long_training=True)
    assert planned["reduce_size"][0] == 12
    assert planned["block_list"][0] == (1, 2, 3)
    assert (planned["conv_blocks"][0], planned["attention_dropout"][0]) == (2, 0.1)


def test_a_short_training_attends_at_the_coarsest_levels_and_convolves_once():
    planned = plan_attention((112, 96), (1.0, 1.0), 4, 16, ("LV", 10.0), long_training=False)
    assert planned["block_list"][0] == (2, 3)
    assert planned["num_heads"][0] == (4, 4)
    assert (planned["conv_blocks"][0], planned["attention_dropout"][0]) == (1, 0.0)


@pytest.mark.parametrize(("darker", "upper"), [(0.99, 98.0), (0.951, 98.0), (0.9, 99.5)])
def test_clipping_spares_the_labels(darker: float, upper: float):
    assert clip_percentiles(hearts(darker=darker)).value == (5.0, upper)


@pytest.mark.parametrize(("share", "way"), [(0.74, "z-score-nonzero"), (0.75, "z-score")])
def test_nonzero_voxels_only_where_cropping_to_them_would_take_a_quarter(share: float, way: str):
    case = {**HEART, "spacing_yx_mm": (1.2, 1.2)}
    cases = [
        make_case(n, **case).model_copy(update={"nonzero_share": share + 0.01 * (n - 2)}) for n in range(5)
    ]
    fingerprint = make_fingerprint_of(cases)
    planned = channel_normalisation(fingerprint, "as published", may_mask=True)
    assert planned.value == (way,) and planned.reason.startswith(way)
    assert ("the median volume: it is 74%" in planned.reason) is (way == "z-score-nonzero")
    assert channel_normalisation(fingerprint, "as published", may_mask=False).value == ("z-score",)


def test_mirrors_only_where_files_do():
    one_sided = make_fingerprint_of([make_case(n, spacing_yx_mm=(1.2, 1.2), **HEART) for n in range(20)])
    assert mirror_axes(one_sided).value == ()
    mixed = make_fingerprint_of(
        [
            make_case(n, spacing_yx_mm=(1.2, 1.2), normal=(0.1, 0.0, -1.0 if n < 4 else 1.0), **HEART)
            for n in range(20)
        ]
    )
    assert mirror_axes(mixed).value == ("x",)
    assert "4 of 20 cases" in mirror_axes(mixed).reason


def test_a_way_in_which_few_scans_lie_is_marked_where_there_are_several():
    one_case = {"size_yx": (9, 9), "spacing_yx_mm": (1.0, 1.0), "structures_mm": {}, "foreground_mm": 1.0}
    cases = [make_case(number, **one_case, normal=(0, 0, 1 if number < 10 else -1)) for number in range(13)]
    ways, reason = training_ways(make_fingerprint_of(cases))
    assert [way.seldom for way in ways] == [False, True]
    assert "10 cases with" in reason and "3 cases with" in reason
    (alone,), _ = training_ways(make_fingerprint_of(cases[-3:]))
    assert not alone.seldom


def test_rotation_follows_the_spread_of_poses():
    def posed(spread: float) -> Fingerprint:
        return make_fingerprint_of(
            [
                make_case(n, spacing_yx_mm=(1.2, 1.2), offset_yx_mm=(spread * (n - 9.5), -20.0), **HEART)
                for n in range(20)
            ]
        )

    narrow, wide = rotation_deg(posed(0.1)).value, rotation_deg(posed(2.0)).value
    assert narrow == 15
    assert 30 < wide <= 90


def test_small_patches_are_led_to_the_labels():
    assert foreground_fraction(hearts(), (128, 128), (256.0, 256.0)).value == 0.5
    assert foreground_fraction(hearts(), (224, 224), (256.0, 256.0)).value == 0.33


def test_histograms_are_mixed_where_another_subject_lends_one_and_values_have_no_unit():
    many, alone = hearts(), make_fingerprint_of(list(hearts().cases[:2]))
    assert histogram_probability(many).value == 0.5
    assert "11 of 13 better" in histogram_probability(many).reason
    assert (alone.overall.subjects, histogram_probability(alone).value) == (1, 0)
    with_units = histogram_probability(many.model_copy(update={"channel_names": ("T2", "CT")}))
    assert with_units.value == 0 and "values of CT mean the same" in with_units.reason


def test_an_epoch_is_one_pass_within_limits():
    fingerprint = hearts()  # 20 volumes of 10 slices: 160 to train on
    assert iterations_per_epoch(fingerprint, 2).value == 80
    assert iterations_per_epoch(fingerprint, 32).value == 50
    assert epochs(fingerprint, 32, 50).value == 100
    assert epochs(fingerprint, 2, 80).value == 1000


def test_the_cpu_planner_goes_as_coarse_as_the_thinnest_structure_allows():
    assert cpu.coarser_spacing(hearts(structures_mm={"MYO": 9.7, "LV": 45.0})).value == (1.75, 1.75)
    assert cpu.coarser_spacing(hearts(structures_mm={"MYO": 6.0, "LV": 45.0})).value == (1.4, 1.4)
    assert cpu.coarser_spacing(hearts(structures_mm={"LV": 45.0})).value == (2.8, 2.8)


def test_an_epoch_on_two_cores_takes_a_minute_or_two(monkeypatch: pytest.MonkeyPatch):
    for module in (capacity, memory):
        monkeypatch.setattr(module, "training_memory", formula_memory)
    plan = cpu.plan(hearts(structures_mm={"MYO": 9.7, "LV": 45.0}), Target(8))
    assert plan.network["base_channels"] == 16
    assert plan.batch_size == 8
    assert max(plan.patch_size) <= 144
    assert "35 GMAC/s" in plan.reasons["iterations_per_epoch"]
    huge = make_fingerprint_of(
        [
            make_case(n, spacing_yx_mm=(1.4, 1.4), slices=400, **HEART | {"structures_mm": {"MYO": 9.7}})
            for n in range(20)
        ]
    )
    big = cpu.plan(huge, Target(8))
    assert big.iterations_per_epoch < 400 * 20 * 0.8 / 8
    assert "fit into 90 s" in big.reasons["iterations_per_epoch"]


@pytest.mark.parametrize(("extent", "focus"), [(100.0, True), (160.0, False)])
def test_one_window_predicts_where_the_largest_case_fits_with_room(extent, focus):
    cases = [
        make_case(number, spacing_yx_mm=(1.25, 1.25), **{**HEART, "foreground_mm": each})
        for number, each in enumerate((90.0, extent))
    ]
    decided = planned_windows(make_fingerprint_of(cases), (128, 144), (1.5, 1.5), long_training=False)
    assert decided["focus"].value is focus
    assert f"up to {extent:.0f} mm" in decided["focus"].reason and "192 mm" in decided["focus"].reason
    trained_long = planned_windows(make_fingerprint_of(cases), (128, 144), (1.5, 1.5), long_training=True)
    assert trained_long["focus"].value is False


def test_nothing_labelled_is_nothing_to_find_first():
    empty = make_case(0, spacing_yx_mm=(1.25, 1.25), size_yx=(256, 256), structures_mm={}, foreground_mm=0)
    assert (
        planned_windows(make_fingerprint_of([empty]), (128, 128), (1.5, 1.5), False)["focus"].value is False
    )
