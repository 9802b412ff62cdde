"""The Plan: everything that the stages after planning need, each planned value with its reason. Behaviour lives elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from utseg.errors import LARGEST_COUNT, SettingError, UsageError
from utseg.files import write_text
from utseg.home import PLAN_FILE, Configuration, plan_folder_name, planner_words, split_plan_name
from utseg.label_map import LabelValue, structures
from utseg.networks import network_settings
from utseg.rawdata.geometry import SPACING_RANGE_MM
from utseg.rawdata.ways import Way
from utseg.settings import AnyValues, Settings, read_model, unknown_key

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=LARGEST_COUNT)]
SpacingMm = Annotated[float, Field(ge=SPACING_RANGE_MM[0], le=SPACING_RANGE_MM[1])]
StepSize = Annotated[float, Field(gt=0, le=1)]
FOCUS_MARGIN = 1.25  # how many times the one window of `focus` has to hold the structures of every case
PREPROCESSING_PREFIX = "preprocessing."
NETWORK_PREFIX = "network."
HISTOGRAMS = "augmentation.histogram_probability"
# The slices that a network is shown for each slice, by their place in its stack and in the order of its channels.
SLICE_OFFSETS: dict[Configuration, tuple[int, ...]] = {"2d": (0,), "2.5d": (-1, 0, 1)}
# What a plan is of, and was made by: nothing to set.
IDENTITY_KEYS = (
    "format",
    "dataset",
    "planner",
    "like",
    "configuration",
    "fingerprint_sha256",
    "memory_gb",
    "preprocessing.labels",
    "preprocessing.channel_names",
    "network_name",
    "network",
    "reasons",
)


def _range(expected: str, fits: Callable[[float, float], bool]) -> AfterValidator:
    def check(value: tuple[float, float]) -> tuple[float, float]:
        low, high = value
        if low > high:
            raise ValueError("expected (low, high), low not above high")
        if not fits(low, high):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


Pair = tuple[float, float]
Shifts = Annotated[Pair, _range("", lambda low, high: True)]
Factors = Annotated[Pair, _range("factors or exponents above 0", lambda low, high: low > 0)]
Deviations = Annotated[Pair, _range("standard deviations of at least 0", lambda low, high: low >= 0)]
Resolutions = Annotated[
    Pair, _range("shares of the resolution above 0, at most 1", lambda low, high: 0 < low <= high <= 1)
]
Shares = Annotated[Pair, _range("shares from 0 to 1", lambda low, high: 0 <= low <= high <= 1)]
Unit = Annotated[float, Field(gt=0)]


class AugmentationSettings(Settings):
    """Ranges that augmentation parameters are drawn from (uniformly), each kind applied with its probability.

    Spatial values are physical: rotation and scaling act on millimetres. Noise and brightness are in units of `intensity_unit`, a value for
    each channel of the normalised image, or one for all: its typical standard deviation, which a z-score makes 1.
    `scale_range`: factors, above 1 enlarges the content. `noise_sd_range`: standard deviation of Gaussian noise.
    `brightness_range`: is added. `contrast_range`: factors on the distance from the patch's mean.
    `gamma_range`: exponents on the range of values, mean and deviation kept.
    `mirror_axes`: each with a probability of one half; z exchanges the neighbouring slices of 2.5-D.
    `foreground_fraction`: share of the patches that are centred on a pixel of a label, labels taking turns; the others lie anywhere.

    `blur_sd_mm_range`: standard deviation of a Gaussian.
    `resolution_range`: the share of the resolution that is left, 0.5 is pixels twice as wide.
    `histogram_share_range`: how much of the way to the histogram of a slice of another subject, preferably of another vendor.
    """

    rotation_deg: Annotated[float, Field(ge=0, le=180)]
    rotation_probability: Probability
    scale_range: Factors
    scale_probability: Probability
    intensity_unit: Annotated[tuple[Unit, ...], Field(min_length=1)] = (1.0,)
    noise_sd_range: Deviations
    noise_probability: Probability
    brightness_range: Shifts
    brightness_probability: Probability
    contrast_range: Factors
    contrast_probability: Probability
    gamma_range: Factors
    gamma_probability: Probability
    mirror_axes: tuple[Literal["z", "y", "x"], ...]
    foreground_fraction: Probability
    blur_sd_mm_range: Deviations
    blur_probability: Probability
    resolution_range: Resolutions
    resolution_probability: Probability
    histogram_share_range: Shares
    histogram_probability: Probability

    @property
    def mirrored_views(self) -> int:
        """How many mirrorings of a slice training knew, the slice as it is among them."""
        return 1 << len(set(self.mirror_axes) - {"z"})

    @property
    def needs_partners(self) -> bool:
        """Whether a patch may take the histogram of a slice of another subject."""
        return self.histogram_probability > 0


class Normalisation(Settings):
    """What is done to one channel: values clipped to `lower` … `upper`, then (value − mean) / sd. `sd` is 0 where all become 0."""

    lower: float
    upper: float
    mean: float
    sd: float

    @property
    def divides(self) -> bool:
        """Whether it tells values apart."""
        return self.lower < self.upper and self.sd > 0


ByVolume = Literal["z-score", "z-score-nonzero", "noNorm", "rescale_to_0_1", "rgb_to_0_1"]
ChannelNormalisation = ByVolume | Normalisation


class Preprocessing(Settings):
    """All that shapes the slices: equal ones give equal slices. Spacing is (y, x) in mm.

    `normalisation`: of each channel, by the name of how it is found for each volume, or the same numbers for all volumes (CT).
    "z-score-nonzero" is the z-score of the voxels that are not 0, the others stay 0; "noNorm" leaves values as they are; "rescale_to_0_1"
    is (value − minimum) / (maximum − minimum); "rgb_to_0_1" divides by 255. `clip_percentiles`: of the volumes before a z-score.
    `ways`: those in which the training scans lie (see `ways.py`); none where they are not known.
    """

    labels: dict[str, LabelValue]
    channel_names: tuple[str, ...]
    spacing_yx_mm: tuple[SpacingMm, SpacingMm]
    clip_percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]]
    normalisation: tuple[ChannelNormalisation, ...]
    ways: tuple[Way, ...] = ()

    @field_validator("clip_percentiles")
    @classmethod
    def _low_below_high(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError("expected (low, high), low below high")
        return value

    @field_validator("normalisation", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(each, str) and each not in get_args(ByVolume) for each in values):
            raise ValueError(f"expected {', '.join(get_args(ByVolume))}, or lower, upper, mean and sd")
        return values

    @field_validator("normalisation")
    @classmethod
    def _one_a_channel(
        cls, value: tuple[ChannelNormalisation, ...], info: ValidationInfo
    ) -> tuple[ChannelNormalisation, ...]:
        names = info.data.get("channel_names", ())
        if len(value) != len(names):
            raise ValueError(f"expected {len(names)}, one for each of the channels {', '.join(names)}")
        for each in value:
            if isinstance(each, Normalisation) and not each.divides:
                raise ValueError("expected lower below upper, and sd above 0")
        return value


class LikeRun(Settings):
    """Whose plan another one keeps to: DATASET/PLAN_2d/MODEL, or a run of it; and the checksum of that plan."""

    name: str
    sha256: str


class Plan(Settings):
    """What was decided for a dataset. Sizes are (y, x) in pixels. `memory_gb`: of the device that it was made for.

    `planner`: what made it; of a plan `like` a trained model's, its own name.
    `neighbour_distance_mm`: of 2.5-D, the distance from each slice to the two that are shown with it.
    `focus`: prediction looks at every third slice first, of a cine's first frame, then through the one window, the same on all slices and
    frames, that shows all structures.
    `step_size`: where it does not, from one window to the next, a share of the window, as nnU-Net's.
    `initial_foreground`: the probability of all structures together that heads begin with; 0 leaves their bias as it is drawn.
    `orthogonal_updates`: weight matrices are stepped by Muon, by recipes that have a rate for it (`optimizer.orthogonal_rate`).

    `network`: settings of the network `network_name`, which alone says what they may be (`utseg.planning.task`).
    `reasons` maps the dotted key of every planned value to the rule and the figures that it came from.
    """

    format: Literal["utseg-plan-1"] = "utseg-plan-1"
    dataset: str
    planner: str
    like: LikeRun | None = None
    configuration: Configuration = "2d"
    fingerprint_sha256: str
    memory_gb: Annotated[float, Field(gt=0)]
    preprocessing: Preprocessing
    neighbour_distance_mm: SpacingMm | None = Field(None, validate_default=True)
    patch_size: tuple[Positive, Positive]
    focus: bool = False
    step_size: StepSize = 0.5
    initial_foreground: Annotated[float, Field(ge=0, lt=1)] = 0.0
    orthogonal_updates: bool = False
    batch_size: Positive
    epochs: Positive
    iterations_per_epoch: Positive
    estimated_memory_gb: Annotated[float, Field(ge=0)]
    network_name: str
    network: AnyValues
    augmentation: AugmentationSettings
    reasons: dict[str, str]

    @field_validator("neighbour_distance_mm")
    @classmethod
    def _in_2_5d_only(cls, value: float | None, info: ValidationInfo) -> float | None:
        configuration = info.data.get("configuration")
        if configuration is not None and (value is None) != (configuration == "2d"):
            raise ValueError("expected millimetres in 2.5d, null in 2d (utseg_plan_and_preprocess -c)")
        return value

    @field_validator("augmentation")
    @classmethod
    def _fits_channels_and_slices(
        cls, value: AugmentationSettings, info: ValidationInfo
    ) -> AugmentationSettings:
        preprocessing = info.data.get("preprocessing")
        if preprocessing and len(value.intensity_unit) not in (1, len(preprocessing.channel_names)):
            names = ", ".join(preprocessing.channel_names)
            raise _wrong_augmentation(
                value, "intensity_unit", f"expected one value, or one for each of {names}"
            )
        if "z" in value.mirror_axes and info.data.get("configuration") == "2d":
            why = "z exchanges neighbouring slices, and 2d shows none; expected y and x only"
            raise _wrong_augmentation(value, "mirror_axes", why)
        return value

    @field_validator("network")
    @classmethod
    def _as_read(cls, value: dict[str, Any]) -> dict[str, Any]:
        """As a file gives it: a plan is equal to what was written of it."""
        return {key: _as_read(entry) for key, entry in value.items()}

    @property
    def in_channels(self) -> int:
        """Number of channels that the network is shown."""
        return network_channels(len(self.preprocessing.channel_names), self.configuration)

    @property
    def num_classes(self) -> int:
        """Number of network outputs: the labels and background."""
        return len(structures(self.preprocessing.labels)) + 1

    @property
    def folder_name(self) -> str:
        """Name of the plan's folder in `preprocessed/NAME` and `results/NAME`."""
        return plan_folder_name(self.planner, self.configuration)


def _wrong_augmentation(value: AugmentationSettings, key: str, why: str) -> ValidationError:
    at = InitErrorDetails(type=PydanticCustomError("value_error", why), loc=(key,), input=getattr(value, key))
    return ValidationError.from_exception_data("AugmentationSettings", [at])


def network_channels(image_channels: int, configuration: Configuration) -> int:
    """Channels of a network's input: those of the image, of each slice that it is shown."""
    return image_channels * len(SLICE_OFFSETS[configuration])


def write_plan(plan: Plan, folder: Path) -> None:
    """Writes `plan.json` into the folder."""
    write_text(folder / PLAN_FILE, plan.model_dump_json(indent=2) + "\n")


def read_plan(folder: Path) -> Plan:
    """Reads `plan.json` from the folder; a wrong value or unknown key raises SettingError naming the path of the key.

    So does a plan of another configuration than the folder is named after. Imports torch: the network says which settings it has.
    """
    path = folder / PLAN_FILE
    plan = read_model(Plan, path)
    expected = split_plan_name(folder.name)[1]
    if plan.configuration != expected:
        raise SettingError(
            f"{path}: configuration: expected {expected}, after the folder's name; found {plan.configuration}; move the "
            f"folder away and run utseg_plan_and_preprocess {' '.join(planner_words(plan_folder_name(plan.planner, expected)))}"
        )
    try:
        known = network_settings(plan.network_name)
    except UsageError as error:
        raise SettingError(f"{path}: network_name: {error}") from None
    for key in plan.network:
        if key not in known:
            raise unknown_key(NETWORK_PREFIX + key, [NETWORK_PREFIX + each for each in known], str(path))
    return plan


def _as_read(value: Any) -> Any:
    return [_as_read(entry) for entry in value] if isinstance(value, list | tuple) else value
