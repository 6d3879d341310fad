"""From a model to frames: settings, the past of finished frames, the rollout over frames."""

from magi_video.sampling.past import CachedPast, Past, RecomputedPast
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.settings import SETTINGS, SamplingSettings, SpeedSetting

__all__ = ["SETTINGS", "CachedPast", "Past", "RecomputedPast", "Rollout", "SamplingSettings", "SpeedSetting"]
