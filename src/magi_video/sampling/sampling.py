"""How a frame is sampled: steps, sampler, temperature, guidance; and the named speeds, points of a measured front.

Preset, saved model, pipeline, command line, page, evaluation and benchmark all take this one class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import Field

from magi_video.errors import MagiError, counted
from magi_video.settings import Items, settings

if TYPE_CHECKING:
    from magi_video.models.head import TokenHead

Speed = Literal["exact", "balanced", "fast", "realtime"]
GuidanceSchedule = Literal["linear", "constant"]
Order = Literal["random", "sparse-to-dense", "confidence"]
Schedule = Literal["autoregressive", "pyramid", "full-sequence"]
Guided = Literal["label", "text", "action"]

PAST_STRIDE = 4
"""Of the strided past, where none is given."""


class Saving(NamedTuple):
    """What a speed makes of a model's own sampling."""

    mask_share: float
    """Share of the model's own mask steps; at least one is taken."""
    most_denoise_steps: int | None
    """Denoise steps at most; None for the model's own number."""
    refresh: int


SPEEDS: dict[Speed, Saving] = {
    "exact": Saving(1, None, 1),
    "balanced": Saving(1 / 4, 10, 4),
    "fast": Saving(1 / 4, 8, 4),
    "realtime": Saving(1 / 8, 8, 4),
}
"""Fastest last. "exact" is the model as it was trained to be sampled; the others are approximations of it.

They are relative to a model's own steps, since the number of steps that a frame needs grows with its tokens. All take
the head's default sampler: of the epsilon head's, the ancestral chain keeps pictures whole in one or two mask steps;
the deterministic ones change more from frame to frame, and much of that is flicker (docs/performance.md)."""

MOST_TOKENS_REUSED, MOST_STEPS_REUSED = 64, 2
"""A speed reuses work between mask steps where a frame has at most so many tokens, or takes at most so many mask steps.
There it costs nothing measurable; four mask steps at 256 tokens lose shape by it (docs/performance.md)."""


@settings
class Sampling:
    """How a frame is sampled.

    What is None is the model's own, or the default named here where the model has none of its own.
    """

    speed: Speed | None = None
    """Compromise between quality and time: exact (default), balanced, fast or realtime. Sets mask steps, denoise steps
    and refresh, as far as they are not given."""
    mask_steps: Annotated[int, Field(ge=1, le=16_384)] | None = None
    """Steps in which a frame's tokens appear, each a pass of the transformer; 64 by default, at most one for each
    token (paper, appendix A.4)."""
    denoise_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Steps of the diffusion head; 100 by default (paper, appendix A.4)."""
    sampler: str | None = None
    """Sampler of the head: ancestral (default), ddim, dpmsolver++ (epsilon head); euler (default), midpoint (flow
    head); ancestral (few-step head)."""
    first_step: Annotated[int, Field(ge=0, le=999)] | None = None
    """Training step of the diffusion chain at which the sampler begins: by default 990 (ancestral), 950 (ddim), 970
    (dpmsolver++). 999 gives MAR's timesteps, which small heads do not bear. Not for flow and few-step heads."""
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """Scale of the head's noise, or of its logits' spread; 1, the default, samples the model's distribution."""
    top_k: Annotated[int, Field(ge=1)] | None = None
    """Draw from so many of the most likely codes; all by default. For the categorical head."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Draw from the fewest codes that together have this probability; 1 by default. For the categorical head."""
    order: Order | None = None
    """Order in which masked tokens appear: random (default; MAR); sparse-to-dense, those that lie apart in most of the
    steps and the gaps between them in few (GtR, Yan et al. 2026); or confidence, the surest first (MaskGIT; for the
    categorical head)."""
    choice_temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """Scale of the Gumbel noise on the confidence, which falls to 0 over the mask steps; 4.5 by default (MAGVIT)."""
    schedule: Schedule | None = None
    """Of the noise levels of Diffusion Forcing: autoregressive, one frame after another; pyramid, each some levels
    behind the one before it; or full-sequence, all together. By default the model's own; docs/paradigms.md."""
    uncertainty: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Levels by which a frame of the pyramid stays behind the one before it. By default the model's own."""
    horizon: Annotated[int, Field(ge=0, le=65536)] | None = None
    """Frames that the pyramid and the full sequence make together; 0: all that are left. By default the model's own."""
    refresh: Annotated[int, Field(ge=1)] | None = None
    """Mask steps from one that reads the whole frame to the next; in between only the tokens that change are read
    (LazyMAR). 1, the default, is exact."""
    guidance_scale: Annotated[float, Field(ge=0, le=100)] | None = None
    """Scale of classifier-free guidance: how strongly label and text are followed. 1, the default, is none; any other
    doubles the work."""
    guidance_schedule: GuidanceSchedule | None = None
    """linear (default): from 1 to the scale as a frame's tokens appear (MAR); or constant."""
    guide: Annotated[tuple[Guided, ...], Items] | None = None
    """Conditions that guidance acts on; label and text by default."""
    last_denoise_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Denoise steps of a frame's last mask step: from the first one on they fall to it evenly, rounded down (DiSA, Zhao
    et al. 2025, from 50 to 5). Not said, all mask steps take `denoise_steps`. Measured at 64 tokens, from 20 to 5
    (docs/performance.md)."""
    last_temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    """What the temperature falls to from frame to frame: frame t after the first that is generated (t = 0) has
    last_temperature + (temperature − last_temperature) · 10^−t; 1 and 0.9 are VideoMAR's (Yu et al. 2025). Not said, it
    stays. Measured at 64 tokens (docs/performance.md)."""

    past_level: Annotated[int, Field(ge=0, le=10_000)] | None = None
    """Noise level of every finished frame as the model reads it, one of those that training injected; 0 by default.
    With more, the model relies less on the past (GameNGen; docs/drift.md)."""
    past_noise: Annotated[float, Field(ge=0, le=10)] | None = None
    """Standard deviation of the noise that is added to every finished frame as those after it see it, on unit-variance
    latents; 0 by default. Training's level l of L has noise_sigma · l / L. A model that knows levels wants the
    past_level too."""
    sink_frames: Annotated[int, Field(ge=0, le=65_536)] | None = None
    """First frames of a video that stay in sight when others leave the window (StreamingLLM's attention sink); 0 by
    default. For models with relative positions; docs/worlds.md."""
    strided_frames: Annotated[int, Field(ge=0, le=65_536)] | None = None
    """Older frames that stay in sight, every past_stride-th one; 0 by default. They and the sink take their places from
    the latest frames: what a frame costs, and the memory, stay bounded."""
    past_stride: Annotated[int, Field(ge=2, le=65_536)] | None = None
    """Frames from one of the strided past to the next; 4 by default. The past reaches strided_frames · past_stride
    frames beyond the latest."""

    @classmethod
    def of(cls, sampling: Sampling | str | None = None, **fields: Any) -> Sampling:
        """From a `Sampling`, the name of a speed or nothing, with some fields replaced.

        Args:
            sampling: what to begin with.
            fields: by name; names of earlier versions (`OLD_NAMES`) will do. None changes nothing.

        Raises:
            MagiError: there is no such speed or field, or a value is out of bounds.
        """
        start = sampling.given() if isinstance(sampling, Sampling) else {"speed": sampling}
        asked = {OLD_NAMES.get(name, name): value for name, value in fields.items() if value is not None}
        return cls(**start | asked)

    def given(self) -> dict[str, Any]:
        """The fields that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None and not name.startswith("_")}

    def complete(self) -> ResolvedSampling:
        """With the default choices where it makes none; the sampler may still be the head's."""
        return ResolvedSampling(**DEFAULTS.given() | self.given())

    def resolve(self, head: TokenHead, own: Sampling | None = None, tokens: int = 1) -> ResolvedSampling:
        """Leave nothing open.

        Args:
            head: the model's.
            own: the model's own sampling. Its `first_step` is for the head's default sampler; more denoise steps than
                lie below it begin higher.
            tokens: of a frame of the model; with many of them no speed reuses work over more than two mask steps.

        Raises:
            MagiError: the head has no such sampler, or cannot take so many steps, or steps from there.
        """
        own = own or Sampling()
        fields, asked = own.complete().given(), self.given()
        saving = SPEEDS[asked.get("speed", fields["speed"])]
        mask_steps = asked.get("mask_steps", max(1, round(fields["mask_steps"] * saving.mask_share)))
        fields["denoise_steps"] = min(fields["denoise_steps"], saving.most_denoise_steps or fields["denoise_steps"])
        if tokens <= MOST_TOKENS_REUSED or mask_steps <= MOST_STEPS_REUSED:
            fields["refresh"] = max(fields["refresh"], saving.refresh)
        fields |= asked | {"mask_steps": mask_steps}
        fields["denoise_steps"] = head.find_denoise_steps(asked.get("denoise_steps"), fields["denoise_steps"])
        if "last_denoise_steps" in fields and "last_denoise_steps" not in asked:  # the model's own, for its own steps
            fields["last_denoise_steps"] = min(fields["last_denoise_steps"], fields["denoise_steps"])
        fields["sampler"] = head.find_sampler(fields.get("sampler"))
        steps, first_step = fields["denoise_steps"], self.first_step
        if first_step is None and own.first_step is not None and fields["sampler"] == head.find_sampler(own.sampler):
            first_step = max(own.first_step, steps - 1)
        fields["first_step"] = head.find_first_step(fields["sampler"], steps, first_step)
        resolved = ResolvedSampling(**fields)
        if (last := resolved.last_denoise_steps) is not None:
            if last > steps:
                raise MagiError(f"last_denoise_steps must be at most {counted(steps, 'denoise step')}, got {last}")
            for fewer in range(last, steps):
                head.find_first_step(fields["sampler"], fewer, resolved.first_step)
        if resolved.chooses_codes and "top_k" not in head.options:
            raise MagiError("top_k, top_p and order 'confidence' are for codes; this model's tokens are continuous")
        return resolved


class ResolvedSampling(Sampling):
    """A `Sampling` that leaves nothing open, but that the sampler may be the head's default (None)."""

    if TYPE_CHECKING:
        speed: Speed
        mask_steps: int
        denoise_steps: int
        temperature: float
        top_p: float
        order: Order
        choice_temperature: float
        refresh: int
        guidance_scale: float
        guidance_schedule: GuidanceSchedule
        guide: tuple[Guided, ...]

    @property
    def chooses_codes(self) -> bool:
        """Whether anything is chosen that only a categorical head can do."""
        return self.top_k is not None or self.top_p < 1 or self.order == "confidence"

    @property
    def guided(self) -> bool:
        """Whether a second half of the batch is needed, to be guided away from."""
        return self.guidance_scale != 1

    def denoise_steps_at(self, step: int, mask_steps: int) -> int:
        """Denoise steps of a mask step, 0…mask_steps − 1, of so many (DiSA: `last_denoise_steps`)."""
        first, last = self.denoise_steps, self.last_denoise_steps
        if last is None or mask_steps == 1:
            return first
        return last + (first - last) * (mask_steps - 1 - step) // (mask_steps - 1)

    def at_frame(self, number: int) -> ResolvedSampling:
        """That of a generated frame, 0 the first (VideoMAR: `last_temperature`)."""
        last = self.last_temperature
        if last is None:
            return self
        falling = last + (self.temperature - last) * 10.0**-number
        return ResolvedSampling(**self.given() | {"temperature": falling, "last_temperature": None})

    def guidance(self, share: float) -> float | None:
        """The scale at a mask step after which `share` of a frame's tokens are there; None without guidance."""
        if not self.guided:
            return None
        return 1 + (self.guidance_scale - 1) * (share if self.guidance_schedule == "linear" else 1)


OLD_NAMES = {"setting": "speed", "num_mask_steps": "mask_steps", "num_denoise_steps": "denoise_steps"}
"""Of fields, in earlier versions."""
DEFAULTS = Sampling(
    speed="exact", mask_steps=64, denoise_steps=100, temperature=1.0, top_p=1.0,
    order="random", choice_temperature=4.5, refresh=1, guidance_scale=1.0,
    guidance_schedule="linear", guide=("label", "text"),
)  # fmt: skip
"""Of a model that has none of its own: the paper's steps (appendix A.4), no guidance; the sampler is the head's."""
