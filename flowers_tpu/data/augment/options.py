"""What may happen to a training photo. The defaults are the notebook's four operations."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from flowers_tpu.options import Options, knob

# What each operation of `--trivial_augment` may come to.
TRIVIAL_RANGES = {
    **{"rotation": 60.0, "zoom": 0.3, "translation": 0.2},
    **{"brightness": 0.4, "contrast": 0.8, "hue": 0.05},
    **{"saturation_lower": 0.1, "saturation_upper": 1.9},
}


@dataclasses.dataclass(frozen=True)
class Augmentation(Options):
    """What may happen to a training photo, and where."""

    topic: ClassVar[str] = "Augmentation"

    augment_on: str = knob(
        "auto",
        "Where training photos are augmented; auto: on a TPU or GPU by itself, else on the "
        "host. Rotation, zoom and translation are slow on a TPU: better on the host there.",
        choices=("auto", "host", "device"),
    )
    flip_left_right: bool = knob(True, "Mirror half of the training photos.")
    flip_up_down: bool = knob(True, "Turn half of the training photos upside down.")
    crop_min: float = knob(
        0.7,
        "Least side of the random square crop, as a fraction of the photo's; 1: no crop.",
        above=0,
        most=1,
    )
    brightness: float = knob(
        0.0, "Most that is added or taken away, as a fraction of full brightness.", least=0, most=1
    )
    contrast: float = knob(
        0.0, "Most that the factor of contrast differs from 1.", least=0, below=1
    )
    saturation_lower: float = knob(
        0.0, "Least factor of colour saturation; 1 and 1: unchanged.", least=0
    )
    saturation_upper: float = knob(2.0, "Largest factor of colour saturation.")
    hue: float = knob(
        0.0,
        "Most that the hue is turned either way, as a fraction of the circle.",
        least=0,
        most=0.5,
    )
    rotation: float = knob(
        0.0, "Most that a photo is turned either way.", unit="degrees", least=0, most=180
    )
    zoom: float = knob(0.0, "Most that the factor of enlargement differs from 1.", least=0, below=1)
    translation: float = knob(
        0.0, "Most that a photo is shifted along a side, as a fraction of it.", least=0, most=1
    )
    random_erasing: float = knob(
        0.0, "Probability with which a random rectangle is painted over.", least=0, most=1
    )
    trivial_augment: bool = knob(
        False,
        "TrivialAugment: one operation a photo (rotation, zoom, shift, brightness, contrast, "
        "saturation, hue, or none), at a strength that is drawn from a fixed range; in place of "
        "the flags for these. Crops, flips and erasing stay.",
    )
    mixup: float = knob(
        0.0,
        "MixUp: photos are blended in pairs, each with shares drawn from Beta(a, a) of this a; 0: "
        "none, 0.2 is usual. With --cutmix too, each pair gets one of the two.",
        least=0,
    )
    cutmix: float = knob(
        0.0,
        "CutMix: a rectangle of a photo is that of another; its area is drawn from Beta(a, a) of "
        "this a; 0: none, 1 is usual.",
        least=0,
    )
    mix_probability: float = knob(
        1.0, "Probability with which a pair is mixed by --mixup or --cutmix.", above=0, most=1
    )

    def contradictions(self) -> Iterator[str]:
        """See `Options`."""
        own = ("brightness", "contrast", "hue", "rotation", "zoom", "translation")
        if self.trivial_augment and (given := [name for name in own if getattr(self, name)]):
            yield f"--trivial_augment draws its own strengths: leave out --{given[0]}"
        if self.saturation_lower > self.saturation_upper:
            yield (
                f"--saturation_lower={self.saturation_lower} is above "
                f"--saturation_upper={self.saturation_upper}"
            )

    @property
    def mixes(self) -> bool:
        """Whether photos are mixed in pairs."""
        return bool(self.mixup or self.cutmix)

    @property
    def warps(self) -> bool:
        """Whether a photo is turned, enlarged or shifted."""
        return bool(self.trivial_augment or self.rotation or self.zoom or self.translation)

    @property
    def least_side(self) -> float:
        """Least side of what is cut out, as a fraction of the photo's."""
        zoom = TRIVIAL_RANGES["zoom"] if self.trivial_augment else self.zoom
        return self.crop_min / (1 + zoom)
