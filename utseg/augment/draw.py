"""Draws the parameters of one augmentation: a value of plain numbers that can be logged, compared and applied again.

Nothing is applied here (`utseg.augment.apply`), and where the patch lies is the sampler's choice (`utseg.augment.sampling`).
"""

from dataclasses import dataclass

import numpy as np

from utseg.planning.plan import AugmentationSettings

INVERTED_GAMMA_SHARE = 0.25


@dataclass(frozen=True)
class Augmentation:
    """What is done to one patch; the defaults change nothing.

    `rotation_deg` turns the content as `np.rot90` does (y towards x, in mm); `scale` above 1 enlarges it; mirroring comes after both.
    `mirror_z` exchanges the slices before and after that 2.5-D shows.
    `noise_sd` and `brightness` are in the plan's `intensity_unit` of each channel. `gamma_inverted` bends the curve from the bright end.
    `resolution` is the share of it that is left. `histogram_share` says how much of another slice's histogram a slice takes,
    `style_source`, from 0 to below 1, which slice's (`utseg.augment.style`).
    """

    rotation_deg: float = 0.0
    scale: float = 1.0
    mirror_y: bool = False
    mirror_x: bool = False
    noise_sd: float = 0.0
    noise_seed: int = 0
    brightness: float = 0.0
    contrast: float = 1.0
    gamma: float = 1.0
    gamma_inverted: bool = False
    blur_sd_mm: float = 0.0
    resolution: float = 1.0
    histogram_share: float = 0.0
    style_source: float = 0.0
    mirror_z: bool = False

    @property
    def interpolates(self) -> bool:
        """Whether pixels move off the grid. Mirroring and cropping do not."""
        return self.rotation_deg != 0 or self.scale != 1

    @property
    def takes_style(self) -> bool:
        """Whether a slice of another subject lends its histogram."""
        return self.histogram_share > 0


def draw_augmentation(rng: np.random.Generator, settings: AugmentationSettings) -> Augmentation:
    """Draws each kind with its probability, its value uniformly from its range.

    Every call takes the same number of values from `rng`, so a changed probability of one kind leaves the draws of the others as they are.
    """

    def value(
        probability: float, low: float, high: float, neutral: float, rng: np.random.Generator = rng
    ) -> float:
        happens, drawn = rng.random(), float(rng.uniform(low, high))
        return drawn if happens < probability else neutral

    # Of the kinds that were added later: the draws of the others stay as they were.
    later = rng.spawn(1)[0]
    mirror_y, mirror_x = rng.random(2) < 0.5
    return Augmentation(
        mirror_y=bool(mirror_y) and "y" in settings.mirror_axes,
        mirror_x=bool(mirror_x) and "x" in settings.mirror_axes,
        rotation_deg=value(settings.rotation_probability, -settings.rotation_deg, settings.rotation_deg, 0.0),
        scale=value(settings.scale_probability, *settings.scale_range, 1.0),
        noise_sd=value(settings.noise_probability, *settings.noise_sd_range, 0.0),
        noise_seed=int(rng.integers(2**32)),
        brightness=value(settings.brightness_probability, *settings.brightness_range, 0.0),
        contrast=value(settings.contrast_probability, *settings.contrast_range, 1.0),
        gamma=value(settings.gamma_probability, *settings.gamma_range, 1.0),
        gamma_inverted=bool(rng.random() < INVERTED_GAMMA_SHARE),
        blur_sd_mm=value(settings.blur_probability, *settings.blur_sd_mm_range, 0.0, later),
        resolution=value(settings.resolution_probability, *settings.resolution_range, 1.0, later),
        histogram_share=value(settings.histogram_probability, *settings.histogram_share_range, 0.0, later),
        style_source=later.random(),
        mirror_z=bool(later.random() < 0.5) and "z" in settings.mirror_axes,
    )
