"""How a frame is made: steps, sampler, temperature; and the named speed settings, points of a measured front.

The settings are relative to what a model was made to be sampled with (`magi info` tells it), since the number of steps
that a frame needs grows with its tokens. Where they come from, and what each costs in quality: docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from magi_video.errors import MagiError

if TYPE_CHECKING:
    from magi_video.models.head import TokenHead

GuidanceSchedule = Literal["linear", "constant"]
Order = Literal["random", "confidence"]
GUIDED = ("label", "text")
"""Conditions that guidance acts on if nothing else is said: those that tell what a whole video shows."""
MAX_GUIDANCE = 100.0


@dataclass(frozen=True)
class SpeedSetting:
    """A named compromise between quality and time.

    Attributes:
        mask_share: of the model's own mask steps; at least one is taken.
        denoise_steps: of the diffusion head, at most; None for the model's own number.
        refresh: see `SamplingSettings`.
    """

    mask_share: float = 1.0
    denoise_steps: int | None = None
    refresh: int = 1


SETTINGS = {
    "exact": SpeedSetting(),
    "balanced": SpeedSetting(1 / 4, 10, 4),
    "fast": SpeedSetting(1 / 4, 8, 4),
    "realtime": SpeedSetting(1 / 8, 8, 4),
}
"""Fastest last. "exact" is the model as it was trained to be sampled; the others are approximations of it.

All take the head's default sampler: of the epsilon head's, the ancestral chain keeps pictures whole in one or two mask
steps; the deterministic ones change more from frame to frame, and much of that is flicker (docs/performance.md)."""


@dataclass(frozen=True)
class SamplingSettings:
    """How a frame is made.

    Attributes:
        num_mask_steps: K, steps in which a frame's tokens appear; 64 in the paper.
        num_denoise_steps: S, steps of the diffusion head for each token; 100 in the paper.
        sampler: one of the head's samplers; None for its default.
        first_step: training step, 0…999, at which the sampler begins; None for the sampler's own. 999 gives MAR's
            timesteps. The flow head has none.
        temperature: of the head's noise, or of its logits; 1 samples the model's distribution.
        top_k, top_p: of the categorical head: draw from the k most likely codes, or the fewest that have probability p.
        order: in which masked tokens appear: "random" (MAR), or "confidence", those first of which the head is surest
            (MaskGIT; for the categorical head).
        choice_temperature: of the Gumbel noise on the confidence, which falls to 0 over the mask steps; 4.5 in MAGVIT.
        refresh: a whole frame is read every so many mask steps. In between only the tokens that have just appeared and
            those that are to be predicted are computed, and see the others as they were (LazyMAR's idea); 1 is exact.
        guidance_scale: of classifier-free guidance, 0…100: 1 is none and costs nothing, any other doubles the work.
        guidance_schedule: "linear", from 1 to the scale as a frame's tokens appear (MAR), or "constant".
        guide: names of the conditions that guidance acts on.
    """

    num_mask_steps: int = 64
    num_denoise_steps: int = 100
    sampler: str | None = None
    temperature: float = 1.0
    refresh: int = 1
    guidance_scale: float = 1.0
    guidance_schedule: GuidanceSchedule = "linear"
    guide: tuple[str, ...] = GUIDED
    first_step: int | None = None
    top_k: int | None = None
    top_p: float = 1.0
    order: Order = "random"
    choice_temperature: float = 4.5

    def __post_init__(self) -> None:
        for name in ("num_mask_steps", "num_denoise_steps", "refresh"):
            if getattr(self, name) < 1:
                raise MagiError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.temperature <= 10:
            raise MagiError(f"temperature must lie in 0…10, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise MagiError(f"top_k must be at least 1, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise MagiError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.order not in get_args(Order):
            raise MagiError(f"unknown order {self.order!r}: choose from {', '.join(get_args(Order))}")
        if not 0 <= self.choice_temperature <= 100:
            raise MagiError(f"choice_temperature must lie in 0…100, got {self.choice_temperature}")
        if not 0 <= self.guidance_scale <= MAX_GUIDANCE:
            raise MagiError(f"guidance_scale must lie in 0…{MAX_GUIDANCE:g}, got {self.guidance_scale}")
        if self.guidance_schedule not in get_args(GuidanceSchedule):
            known = ", ".join(get_args(GuidanceSchedule))
            raise MagiError(f"unknown guidance_schedule {self.guidance_schedule!r}: choose from {known}")

    @property
    def chooses_codes(self) -> bool:
        """Whether anything is set that only a categorical head can do."""
        return self.top_k is not None or self.top_p < 1 or self.order == "confidence"

    @property
    def guided(self) -> bool:
        """Whether a second half of the batch is needed, to be guided away from."""
        return self.guidance_scale != 1

    def guidance(self, share: float) -> float | None:
        """The scale at a mask step after which `share` of a frame's tokens are there; None without guidance."""
        if not self.guided:
            return None
        return 1 + (self.guidance_scale - 1) * (share if self.guidance_schedule == "linear" else 1)

    @classmethod
    def of(
        cls,
        setting: str,
        head: TokenHead,
        mask_steps: int,
        denoise_steps: int,
        own_first_step: int | None = None,
        *,
        num_mask_steps: int | None = None,
        num_denoise_steps: int | None = None,
        sampler: str | None = None,
        temperature: float = 1.0,
        refresh: int | None = None,
        guidance_scale: float = 1.0,
        guidance_schedule: GuidanceSchedule = "linear",
        guide: Sequence[str] = GUIDED,
        first_step: int | None = None,
        top_k: int | None = None,
        top_p: float = 1.0,
        order: Order = "random",
        choice_temperature: float = 4.5,
    ) -> SamplingSettings:
        """A named speed setting for a model, each of its parts replaced by the argument that is not None.

        Args:
            setting: one of `SETTINGS`.
            head: the model's.
            mask_steps, denoise_steps: the model's own.
            own_first_step: the model's own, for the head's default sampler; more steps than lie below it begin higher.
            num_mask_steps, num_denoise_steps, sampler, temperature, refresh: as of this class.
            guidance_scale, guidance_schedule, guide, first_step: as of this class.
            top_k, top_p, order, choice_temperature: as of this class.

        Returns:
            The settings, with the sampler and the first step that they come to.

        Raises:
            MagiError: there is no such setting or sampler, or the head cannot take so many steps, or steps from there,
                or codes are to be chosen and it has none.
        """
        if setting not in SETTINGS:
            raise MagiError(f"unknown speed setting {setting!r}: choose from {', '.join(SETTINGS)}")
        speed = SETTINGS[setting]
        named_mask_steps = max(1, round(mask_steps * speed.mask_share))
        named_denoise_steps = min(denoise_steps, speed.denoise_steps or denoise_steps)
        num_denoise_steps = head.find_denoise_steps(num_denoise_steps, named_denoise_steps)
        sampler = head.find_sampler(sampler)
        if first_step is None and own_first_step is not None and sampler == head.find_sampler(None):
            first_step = max(own_first_step, num_denoise_steps - 1)
        made = cls(
            named_mask_steps if num_mask_steps is None else num_mask_steps,
            num_denoise_steps,
            sampler,
            temperature,
            speed.refresh if refresh is None else refresh,
            guidance_scale,
            guidance_schedule,
            tuple(guide),
            first_step,
            top_k,
            top_p,
            order,
            choice_temperature,
        )
        if made.chooses_codes and "top_k" not in head.options:
            raise MagiError(
                "top_k, top_p and order 'confidence' choose among codes; this model's tokens are continuous"
            )
        return replace(made, first_step=head.find_first_step(sampler, num_denoise_steps, first_step))
