"""Cures for exposure bias, one file each, chosen by one configuration key, `exposure`.

How to add one
--------------
Write a file here with a subclass of `Cure` under `@register`, and import it below. Recipes, the command line and
the documents take their choices from the registry.

Beside the cures stands what generation, not training, does to the past that a frame sees: noise (`noisy_past.py`), and
frames that stay in sight beyond the window (`memory.py`).
"""

from magi_video.exposure.base import CURES, Cure, register
from magi_video.exposure.canvas import Canvas
from magi_video.exposure.error_bank import ErrorBank
from magi_video.exposure.noise import Noise
from magi_video.exposure.none import TruePast
from magi_video.exposure.resampling import Resampling

__all__ = ["CURES", "Canvas", "Cure", "ErrorBank", "Noise", "Resampling", "TruePast", "register"]
