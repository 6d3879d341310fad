"""A rollout for timing: complete teacher forcing by the fast path, one video without end."""

import torch

from magi_video.fast.speed import begin_past
from magi_video.models.random import SampleNoise
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import CompleteTeacherForcing
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling


def start_rollout(model: MagiVideoTransformer, sampling: Sampling) -> Rollout:
    """Nothing is given; the model needs relative temporal positions."""
    paradigm = CompleteTeacherForcing()
    past = begin_past(paradigm, model, 1, None, sampling)
    noise, interval = SampleNoise.from_seeds([0]), torch.tensor([1])
    return Rollout(model, paradigm, noise, sampling, interval, None, past=past)
