"""Dynamic noise injection as a choice of recipes; the paper's. What it does: `paradigms.masking.NoiseInjection`."""

from typing import Any

from magi_video.exposure.base import Cure, register
from magi_video.paradigms.masking import NoiseInjection


@register
class Noise(NoiseInjection, Cure):
    """Noise injection; its level is a condition of the model.

    Args:
        levels, max_sigma: as of `NoiseInjection`: a recipe's `noise_levels` and `noise_sigma`.
        options: of a subclass.
    """

    name = "noise"
    title = "noise, its level a condition of the model (the paper's)"
    injects = True

    def __init__(self, levels: int = 5, max_sigma: float = 0.7, **options: Any) -> None:
        NoiseInjection.__init__(self, levels, max_sigma)
        Cure.__init__(self, **options)
