"""The Plan: everything that the stages after planning need, each planned value with its reason. Behaviour lives elsewhere."""

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from utseg.files import write_text
from utseg.home import PLAN_FILE
from utseg.rawdata.ways import Way
from utseg.settings import Settings, read_model, setting_keys, unknown_key, with_settings

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
FACTOR_RANGES = ("scale_range", "contrast_range", "gamma_range", "resolution_range")
SHARE_RANGES = ("histogram_share_range", "amplitude_share_range")
BLOCK_LIST = "network.block_list"
ENTRIES_BY_LEVEL = ("network.num_blocks", "network.num_heads")
PREPROCESSING_PREFIX = "preprocessing."
# What a plan is of, and was made by: nothing to set.
IDENTITY_KEYS = (
    "format",
    "dataset",
    "planner",
    "configuration",
    "fingerprint_sha256",
    "preprocessing.labels",
    "preprocessing.channel_names",
    "reasons",
)


class NetworkSettings(Settings):
    """Size and shape of the network. Networks other than UTNet take from these the settings that they have."""

    base_channels: Positive
    levels: Positive
    block_list: tuple[int, ...]
    num_blocks: tuple[Positive, ...]
    num_heads: tuple[Positive, ...]
    reduce_size: Positive
    projection: Literal["interp", "maxpool"] = "interp"
    relative_position: Literal["2d-bias", "1d-qk", "none"] = "2d-bias"
    aux_loss: bool = True

    @field_validator("block_list")
    @classmethod
    def _levels_once_each(cls, value: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        levels = info.data.get("levels", max(value, default=0))  # absent where it is wrong itself
        if not set(value) <= set(range(levels + 1)) or len(set(value)) < len(value):
            raise ValueError(f"expected levels from 0 to {levels}, each once")
        return value

    @model_validator(mode="after")
    def _one_entry_a_level(self) -> "NetworkSettings":
        if not len(self.block_list) == len(self.num_blocks) == len(self.num_heads):
            raise ValueError(
                "block_list, num_blocks and num_heads need one entry for each level with attention"
            )
        return self


class AugmentationSettings(Settings):
    """Ranges that augmentation parameters are drawn from (uniformly), each kind applied with its probability.

    Spatial values are physical: rotation and scaling act on millimetres. Intensities are those of the normalised image (unit variance).
    `scale_range`: factors, above 1 enlarges the content. `noise_sd_range`: standard deviation of Gaussian noise.
    `brightness_range`: is added. `contrast_range`: factors on the distance from the patch's mean.
    `gamma_range`: exponents on the range of values, mean and deviation kept.
    `foreground_fraction`: share of the patches that are centred on a pixel of a label, labels taking turns; the others lie anywhere.

    The kinds below it are off by default. `blur_sd_mm_range`: standard deviation of a Gaussian.
    `resolution_range`: the share of the resolution that is left, 0.5 is pixels twice as wide.
    Two kinds take the look of a slice of another subject, preferably of another vendor, by a share from nothing to all of it:
    `histogram_…` its histogram; `amplitude_…` the amplitudes (not the phases) of its waves as long as `amplitude_wavelength_mm_range` and
    longer.
    """

    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    rotation_probability: Probability
    scale_range: tuple[float, float]
    scale_probability: Probability
    noise_sd_range: tuple[float, float]
    noise_probability: Probability
    brightness_range: tuple[float, float]
    brightness_probability: Probability
    contrast_range: tuple[float, float]
    contrast_probability: Probability
    gamma_range: tuple[float, float]
    gamma_probability: Probability
    mirror_axes: tuple[Literal["y", "x"], ...]
    foreground_fraction: Probability
    blur_sd_mm_range: tuple[float, float] = (0.5, 2.0)
    blur_probability: Probability = 0.0
    resolution_range: tuple[float, float] = (0.5, 1.0)
    resolution_probability: Probability = 0.0
    histogram_share_range: tuple[float, float] = (0.0, 1.0)
    histogram_probability: Probability = 0.0
    amplitude_share_range: tuple[float, float] = (0.0, 1.0)
    amplitude_wavelength_mm_range: tuple[float, float] = (40.0, 150.0)
    amplitude_probability: Probability = 0.0

    @property
    def needs_partners(self) -> bool:
        """Whether a patch may take the look of a slice of another subject."""
        return self.histogram_probability > 0 or self.amplitude_probability > 0

    @field_validator(
        "scale_range",
        "noise_sd_range",
        "brightness_range",
        "contrast_range",
        "gamma_range",
        "blur_sd_mm_range",
        "resolution_range",
        "histogram_share_range",
        "amplitude_share_range",
        "amplitude_wavelength_mm_range",
    )
    @classmethod
    def _a_range(cls, value: tuple[float, float], info: ValidationInfo) -> tuple[float, float]:
        low, high = value
        if not (isfinite(low) and isfinite(high) and low <= high):
            raise ValueError("expected finite numbers (low, high), low not above high")
        if info.field_name in FACTOR_RANGES and low <= 0:
            raise ValueError("expected factors or exponents above 0")
        if info.field_name in ("noise_sd_range", "blur_sd_mm_range") and low < 0:
            raise ValueError("expected standard deviations of at least 0")
        if info.field_name == "resolution_range" and high > 1:
            raise ValueError("expected shares of the resolution, at most 1")
        if info.field_name in SHARE_RANGES and not 0 <= low <= high <= 1:
            raise ValueError("expected shares from 0 to 1")
        if info.field_name == "amplitude_wavelength_mm_range" and low <= 0:
            raise ValueError("expected wavelengths above 0 mm")
        return value


class Preprocessing(Settings):
    """All that shapes the slices: equal ones give equal slices. Spacing is (y, x) in mm.

    `ways`: those in which the training scans lie (see `ways.py`); none where they are not known.
    """

    labels: dict[str, int]
    channel_names: tuple[str, ...]
    spacing_yx_mm: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]
    clip_percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]]
    normalisation: Literal["z-score"] = "z-score"
    ways: tuple[Way, ...] = ()

    @field_validator("clip_percentiles")
    @classmethod
    def _low_below_high(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("expected (low, high), low below high")
        return value


class Plan(Settings):
    """What was decided for a dataset. Sizes are (y, x) in pixels.

    `reasons` maps the dotted key of every planned value to the rule and the figures that it came from.
    """

    format: Literal["utseg-plan-1"] = "utseg-plan-1"
    dataset: str
    planner: str
    configuration: Literal["2d"] = "2d"
    fingerprint_sha256: str
    preprocessing: Preprocessing
    patch_size: tuple[Positive, Positive]
    batch_size: Positive
    epochs: Positive
    iterations_per_epoch: Positive
    estimated_memory_gb: float
    network: NetworkSettings
    augmentation: AugmentationSettings
    reasons: dict[str, str]

    @property
    def in_channels(self) -> int:
        """Number of image channels."""
        return len(self.preprocessing.channel_names)

    @property
    def num_classes(self) -> int:
        """Number of network outputs: the largest label value and background."""
        return max(self.preprocessing.labels.values()) + 1

    @property
    def folder_name(self) -> str:
        """Name of the plan's folder in `preprocessed/NAME` and `results/NAME`."""
        return f"{self.planner}_{self.configuration}"


def write_plan(plan: Plan, folder: Path) -> None:
    """Writes `plan.json` into the folder."""
    write_text(folder / PLAN_FILE, plan.model_dump_json(indent=2) + "\n")


def override(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """The plan with values that the user set, by dotted key; their reasons say so. Nothing else is planned or estimated again.

    Raises SettingError for an unknown key, for a wrong value, and for keys that say what the plan is of (dataset, labels, …).
    """
    settable = [key for key in setting_keys(Plan) if key not in IDENTITY_KEYS]
    for key in values:
        if key not in settable:
            raise unknown_key(key, settable)
    complete = with_entries_by_level(plan.network, values)
    changed = with_settings(plan, complete)
    before = plan.model_dump(mode="json")
    why = {
        key: "set by the user" if key in values else f"follows {BLOCK_LIST}, set by the user"
        for key in complete
    }
    reasons = {key: f"{words}; the planner had {_value_at(before, key)}" for key, words in why.items()}
    reasons = {**plan.reasons, **reasons}
    return changed.model_copy(update={"reasons": reasons})


def with_entries_by_level(network: NetworkSettings, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, completed: entries of num_blocks and num_heads that are not set follow a set `network.block_list`, each level with the
    planned entry, or that of the nearest planned level. A single number is a list of one; one entry serves all levels.
    """
    complete = dict(values)
    for key in (BLOCK_LIST, *ENTRIES_BY_LEVEL):
        if isinstance(complete.get(key), int) and not isinstance(complete[key], bool):
            complete[key] = [complete[key]]
    levels = complete.get(BLOCK_LIST, list(network.block_list))
    if not isinstance(levels, list | tuple) or not all(isinstance(level, int) for level in levels):
        return complete  # which validation refuses in its own words
    for key in ENTRIES_BY_LEVEL:
        entries = complete.get(key)
        if isinstance(entries, list | tuple) and len(entries) == 1:
            complete[key] = list(entries) * len(levels)
        elif entries is None and BLOCK_LIST in complete:
            planned = dict(
                zip(network.block_list, getattr(network, key.removeprefix("network.")), strict=True)
            )
            nearest = [min(planned, key=lambda there: abs(there - level), default=None) for level in levels]
            complete[key] = [1 if there is None else planned[there] for there in nearest]
    return complete


def _value_at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def read_plan(folder: Path) -> Plan:
    """Reads `plan.json` from the folder; a wrong value or unknown key raises SettingError naming the path of the key."""
    return read_model(Plan, folder / PLAN_FILE)
