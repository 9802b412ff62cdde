"""Ranges of augmentation: intensities wide enough for other vendors, places and sizes from how much the labelled structures vary.

Left to the recipe of training: nothing. What is drawn from the ranges is the augmentation's business.
"""

from typing import Any

from planners.decision import Decision

PUBLISHED = (
    "the kind as published for UTNet (Gao, Zhou, Metaxas, MICCAI 2021), the figure ours: the paper gives none"
)


def _intensity() -> dict[str, tuple[Any, str]]:
    return {
        "noise_sd_range": ((0.0, 0.1), "noise of up to 0.1 standard deviations of the volume"),
        "noise_probability": (0.2, "noise on 0.2 of the patches"),
        "brightness_range": ((-0.3, 0.3), "shifts of up to 0.3 standard deviations"),
        "brightness_probability": (0.3, "brightness on 0.3 of the patches"),
        "contrast_range": (
            (0.65, 1.5),
            "contrast from 0.65 to 1.5, as much as scanners of other vendors differ",
        ),
        "contrast_probability": (0.3, "contrast on 0.3 of the patches"),
        "gamma_range": ((0.7, 1.5), "gamma from 0.7 to 1.5, as much as scanners of other vendors differ"),
        "gamma_probability": (0.3, "gamma on 0.3 of the patches"),
    }


INTENSITY_AUGMENTATION: dict[str, Decision[Any]] = {
    f"augmentation.{key}": Decision(
        value, f"{text}: wide rather than realistic, since other scanners than the training ones will come"
    )
    for key, (value, text) in _intensity().items()
}

PUBLISHED_AUGMENTATION: dict[str, Decision[Any]] = {
    f"augmentation.{key}": Decision(value, f"{text}; {PUBLISHED}")
    for key, (value, text) in (
        _intensity()
        | {
            "rotation_deg": (30.0, "up to 30 degrees either way"),
            "rotation_probability": (0.5, "on 0.5 of the patches"),
            "scale_range": ((0.7, 1.3), "factors from 0.7 to 1.3"),
            "scale_probability": (0.5, "on 0.5 of the patches"),
            "mirror_axes": ((), "() is no mirroring: the publication has none"),
            "foreground_fraction": (
                0.33,
                "0.33 of the patches are centred on a label, the others are random crops",
            ),
        }
    ).items()
}
