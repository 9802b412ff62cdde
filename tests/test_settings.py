"""What holds for every settings model, those of records too: no number in them is infinite or NaN. How a wrong key is told."""

import importlib
import math
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import utseg
from utseg.settings import DEEPEST_VALUE, AnyValues, Settings, unknown_key

NO_NUMBERS = (math.inf, -math.inf, math.nan)


def models(base: type[Settings] = Settings) -> Iterator[type[Settings]]:
    for model in base.__subclasses__():
        yield model
        yield from models(model)


def holding(value: float) -> list[Any]:
    """The number, and what may hold it: tuples of one to four, a mapping, one of pairs."""
    return [
        value,
        *([value] * count for count in (1, 2, 3, 4)),
        {"a": value},
        {"a": [value, value]},
        {"a": {"b": (0.0, value)}},
    ]


def accepts(model: type[BaseModel], field: FieldInfo, value: Any) -> bool:
    try:
        TypeAdapter(field.rebuild_annotation(), config=model.model_config).validate_python(value)
    except ValidationError:
        return False
    return True


def fields() -> Iterator[tuple[type[Settings], str, FieldInfo]]:
    """All but those that are a model, whose own fields are here."""
    for module in pkgutil.walk_packages(utseg.__path__, "utseg."):
        importlib.import_module(module.name)
    for model in models():
        for name, field in model.model_fields.items():
            is_model = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            if not is_model:
                yield model, name, field


def test_no_field_of_any_settings_takes_a_number_that_is_not_finite():
    numbers = set()
    for model, name, field in fields():
        wrong = [value for number in NO_NUMBERS for value in holding(number) if accepts(model, field, value)]
        assert not wrong, f"{model.__name__}.{name} takes {wrong}"
        if any(accepts(model, field, value) for value in holding(0.5)):
            numbers.add(f"{model.__name__}.{name}")
    assert {"OptimizerSettings.learning_rate", "Plan.memory_gb", "TestOn.share"} <= numbers
    assert {"AugmentationSettings.scale_range", "LossSettings.class_weights", "Normalisation.sd"} <= numbers


@pytest.mark.parametrize("text", ["inf", "-Infinity", "NaN", "1e999"])
def test_nor_does_it_as_a_person_types_it(text):
    from utseg.settings import parse_settings, with_settings
    from utseg.training.recipe import ScheduleSettings

    with pytest.raises(ValueError, match=r"--set: power: Input should be .*; found"):
        with_settings(ScheduleSettings(), parse_settings([f"power={text}"]))


@pytest.mark.parametrize(
    ("levels", "allowed"), [(DEEPEST_VALUE - 1, True), (DEEPEST_VALUE, False), (5_000, False)]
)
def test_values_of_any_kind_are_nested_no_deeper_than_code_can_follow(levels, allowed):
    deep: Any = 0.5
    for _ in range(levels):
        deep = [deep]
    adapter = TypeAdapter(AnyValues)
    if allowed:
        assert adapter.validate_python({"a": deep})["a"] is deep
    else:
        with pytest.raises(ValidationError, match="nested more than 64 levels deep"):
            adapter.validate_python({"a": deep})


def test_a_number_in_values_of_any_kind_is_finite_wherever_it_stands():
    with pytest.raises(ValidationError, match="a number in it is inf"):
        TypeAdapter(AnyValues).validate_python({"a": [{"b": [1.0, math.inf]}]})


def test_a_key_without_its_group_is_told_with_it():
    known = ["orthogonal_updates", "optimizer.orthogonal_decay"]
    assert "did you mean 'optimizer.orthogonal_decay'?" in str(unknown_key("orthogonal_decay", known))
