"""From a model to frames: the unmasking schedule, per-sample randomness, the rollout over frames."""

from magi_video.sampling.noise import SampleNoise
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.schedule import unmasking_schedule
from magi_video.sampling.settings import SETTINGS, SamplingSettings, SpeedSetting

__all__ = ["SETTINGS", "Rollout", "SampleNoise", "SamplingSettings", "SpeedSetting", "unmasking_schedule"]
