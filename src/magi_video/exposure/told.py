"""The noise that generation gives the past and tells of it (`Sampling.past_level`, `past_noise`): for whom it is."""

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.sampling import Sampling


def check_told(model: MagiVideoTransformer, paradigm: Paradigm, sampling: Sampling) -> None:
    """Refuse noise of the past that a paradigm does not read, or a level that a model does not know.

    Raises:
        MagiError: why, or what it knows.
    """
    if not (sampling.past_level or sampling.past_noise):
        return
    if paradigm.past == "noisy" or getattr(paradigm, "attention", "") == "flat":
        raise MagiError(
            f"{paradigm.name} gives its finished frames no noise that it could be told of: no past_level, no past_noise"
        )
    level, spec = sampling.past_level or 0, model.condition_tokens.specs.get(NOISE_LEVEL)
    most = 0 if spec is None else spec.size - 1
    if level > most:
        raise MagiError(f"past_level must lie in 0…{most}, the noise levels of this model's training, got {level}")
