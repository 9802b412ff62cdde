"""Charts: scales that hold their values, text that stays text; JSON that no tag can leave."""

import json
from xml.etree import ElementTree

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from utseg.figures.axes import logarithmic_scale, scale
from utseg.figures.charts import (
    Curve,
    Dots,
    ForestRow,
    Point,
    agreement,
    curves,
    distribution,
    forest,
    points_chart,
)
from utseg.report.page import json_in_html

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(FINITE, FINITE)
def test_a_scale_holds_its_limits_on_round_ticks(a, b):
    low, high = sorted((a, b))
    found = scale(low, high, 0, 100)
    span = max(abs(low), abs(high), 1e-9)
    assert found.ticks[0] <= low + 1e-6 * span and found.ticks[-1] >= high - 1e-6 * span
    assert 2 <= len(found.ticks) <= 9
    assert 0 <= found(low) <= found(high) <= 100


@given(st.integers(0, 3000))
def test_ticks_of_frames_are_whole(last):
    ticks = scale(0, last, 0, 100, whole=True).ticks
    assert all(tick == int(tick) for tick in ticks) and ticks[-1] >= last


@given(st.floats(0, 1000))
def test_a_logarithmic_scale_begins_at_zero_and_holds_its_limit(high):
    found = logarithmic_scale(0, max(high, 0.1), 0, 100)
    assert found(0) == 0 and found(found.ticks[-1]) == 100 and found.ticks[-1] >= high


@given(st.floats(1e-3, 1e6), st.floats(1, 1000))
def test_a_logarithmic_scale_lies_around_its_limits(low, factor):
    found = logarithmic_scale(low, low * factor, 0, 100)
    assert found.ticks[0] < low and low * factor < found.ticks[-1]
    assert found(found.ticks[0]) == 0 and found(found.ticks[-1]) == 100
    assert found(low) <= found(low * factor)


@settings(max_examples=15, deadline=None)
@given(st.text(max_size=30), st.lists(st.floats(0, 1), max_size=8))
def test_charts_are_whole_svg_whatever_the_names(name, values):
    name = "".join(c for c in name if c.isprintable())  # XML has no control characters
    rows = [Dots(f"<{name}", 0, np.array(values), [name] * len(values), 1)]
    charts = [distribution(f"<b>{name}", "&", rows, (0, 1))]
    charts.append(curves(name, '"', [Curve(f"</g>{name}", 1, [1, 2], [0.5, float("nan")])], (0, 1)))
    if len(values) > 1:
        found = {"bias": 0.1, "limits": [-0.5, 0.5]}
        both = np.array(values)
        charts.append(agreement(name, "<ml>", both, both, [f"'{name}"] * len(values), found))
    points = [Point(1 + value, value, 0, f"<{name}", f"&{name}", (0.0, 1.0)) for value in values]
    if points:
        charts.append(points_chart(name, ("<", "&"), points, lines=[points], logarithmic=True))
        charts.append(forest(name, "<", [ForestRow(f"<{name}", value, None) for value in values]))
    for chart in charts:
        root = ElementTree.fromstring(str(chart))
        assert {element.tag for element in root.iter()} <= {
            "svg",
            "g",
            "path",
            "rect",
            "circle",
            "text",
            "title",
            "polyline",
        }


def test_a_box_has_its_quartiles():
    values = np.arange(0, 101) / 100
    chart = ElementTree.fromstring(str(distribution("t", "u", [Dots("all", 0, values, ["c"] * 101)], (0, 1))))
    (box,) = chart.iter("rect")
    x = scale(0, 1, 92, 326)
    assert float(box.get("x")) == x(0.25) and float(box.get("width")) == round(x(0.75) - x(0.25), 1)


@settings(max_examples=15, deadline=None)
@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_in_html_is_the_same_value_and_has_no_tag_or_entity(value):
    text = str(json_in_html(value))
    assert json.loads(text) == value
    assert not set(text) & set("<>&\u2028\u2029")
