"""How a frame is made: steps, sampler, temperature; and the named speed settings, points of a measured front.

The settings are relative to what a model was made to be sampled with (`magi info` tells it), since the number of steps
that a frame needs grows with its tokens. Where they come from, and what each costs in quality: docs/performance.md.
"""

from dataclasses import dataclass

from magi_video.errors import MagiError


@dataclass(frozen=True)
class SpeedSetting:
    """A named compromise between quality and time.

    Attributes:
        mask_share: of the model's own mask steps; at least one is taken.
        denoise_steps: of the diffusion head, at most; None for the model's own number.
        samplers: to use where the head has one of them; else its default.
        refresh: see `SamplingSettings`.
    """

    mask_share: float = 1.0
    denoise_steps: int | None = None
    samplers: tuple[str, ...] = ()
    refresh: int = 1


SETTINGS = {
    "exact": SpeedSetting(),
    "balanced": SpeedSetting(1 / 4, 10, ("dpmsolver++",)),
    "fast": SpeedSetting(1 / 4, 6, ("dpmsolver++",)),
    "realtime": SpeedSetting(1 / 8, 6, ("dpmsolver++",)),
}
"""Fastest last. "exact" is the model as it was trained to be sampled; the others are approximations of it."""


@dataclass(frozen=True)
class SamplingSettings:
    """How a frame is made.

    Attributes:
        num_mask_steps: K, steps in which a frame's tokens appear; 64 in the paper.
        num_denoise_steps: S, steps of the diffusion head for each token; 100 in the paper.
        sampler: one of the head's samplers; None for its default.
        temperature: of the head's noise; 1 samples the model's distribution.
        refresh: a whole frame is read every so many mask steps. In between only the tokens that have just appeared and
            those that are to be predicted are computed, and see the others as they were (LazyMAR's idea); 1 is exact.
    """

    num_mask_steps: int = 64
    num_denoise_steps: int = 100
    sampler: str | None = None
    temperature: float = 1.0
    refresh: int = 1

    def __post_init__(self) -> None:
        for name in ("num_mask_steps", "num_denoise_steps", "refresh"):
            if getattr(self, name) < 1:
                raise MagiError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature <= 10:
            raise MagiError(f"temperature must lie in 0…10, got {self.temperature}")

    @classmethod
    def of(
        cls,
        setting: str,
        mask_steps: int,
        denoise_steps: int,
        samplers: tuple[str, ...],
        temperature: float = 1.0,
    ) -> "SamplingSettings":
        """A named speed setting for a model.

        Args:
            setting: one of `SETTINGS`.
            mask_steps, denoise_steps: the model's own.
            samplers: that its head has.
            temperature: of the head's noise.

        Raises:
            MagiError: there is no such setting.
        """
        if setting not in SETTINGS:
            raise MagiError(f"unknown speed setting {setting!r}: choose from {', '.join(SETTINGS)}")
        speed = SETTINGS[setting]
        return cls(
            max(1, round(mask_steps * speed.mask_share)),
            min(denoise_steps, speed.denoise_steps or denoise_steps),
            next((name for name in speed.samplers if name in samplers), None),
            temperature,
            speed.refresh,
        )
