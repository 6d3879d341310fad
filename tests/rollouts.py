"""Rollouts for tests, over any way to keep the past."""

from typing import Any

import torch

from magi_video.fast.speed import begin_past
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import OBSERVATION
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import CompleteTeacherForcing, MaskedTeacherForcing
from magi_video.sampling.past import RecomputedPast
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import Sampling


def start_rollout(
    model: MagiVideoTransformer,
    seeds: list[int],
    settings: Sampling,
    frames: int | None,
    *,
    kind: int = OBSERVATION,
    use_cache: bool = True,
    interval: int = 1,
    **options: Any,
) -> Rollout:
    """A rollout as the pipeline starts it; `kind` chooses the paradigm that caches frames of this kind."""
    paradigm = CompleteTeacherForcing() if kind == OBSERVATION else MaskedTeacherForcing()
    past = begin_past(paradigm, model, len(seeds), frames, settings) if use_cache else RecomputedPast(model)
    intervals = torch.full((len(seeds),), interval)
    return Rollout(model, paradigm, SampleNoise.from_seeds(seeds), settings, intervals, frames, past=past, **options)
