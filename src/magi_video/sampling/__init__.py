"""From a model to frames: the unmasking schedule, per-sample randomness, the rollout over frames."""

from magi_video.sampling.noise import SampleNoise
from magi_video.sampling.rollout import Rollout, SamplingSettings
from magi_video.sampling.schedule import unmasking_schedule

__all__ = ["Rollout", "SampleNoise", "SamplingSettings", "unmasking_schedule"]
