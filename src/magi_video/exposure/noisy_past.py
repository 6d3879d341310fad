"""Noise that generation adds to the past, and its level as a condition: `Sampling.past_level`, `past_noise`."""

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.sampling import Sampling


def check_noisy_past(model: MagiVideoTransformer, paradigm: Paradigm, sampling: Sampling) -> None:
    """Refuse noise of the past that a paradigm does not read, a level that a model does not know, or noise without one.

    Raises:
        MagiError: why, or what it knows.
    """
    if not (sampling.past_level or sampling.past_noise):
        return
    if paradigm.past == "noisy" or getattr(paradigm, "attention", "") == "flat":
        raise MagiError(f"{paradigm.name} takes no noise in the past, so past_level and past_noise mean nothing to it")
    level, spec = sampling.past_level or 0, model.condition_tokens.specs.get(NOISE_LEVEL)
    most = 0 if spec is None else spec.size - 1
    if level > most == 0:
        raise MagiError(f"this model was trained without noise levels, so it knows no past_level {level}")
    if level > most:
        raise MagiError(f"past_level must lie in 0…{most}, the noise levels of this model's training, got {level}")
    if sampling.past_noise and sampling.past_level is None and most:
        raise MagiError(
            f"past_noise needs a past_level, 1…{most}: without it this model takes the noise for a part of the picture"
        )
