"""A rollout for timing: complete teacher forcing by the fast path, one video without end."""

import torch

from magi_video.fast.speed import make_past
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import CompleteTeacherForcing
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling


def start_rollout(model: MagiVideoTransformer, sampling: Sampling) -> Rollout:
    """Nothing is given; the model needs relative temporal positions."""
    past = make_past(model, 1, None, sampling)
    noise, interval = SampleNoise.from_seeds([0]), torch.tensor([1])
    return Rollout(model, CompleteTeacherForcing(), noise, sampling, interval, None, past=past)
