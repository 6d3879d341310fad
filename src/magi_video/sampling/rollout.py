"""A rollout: frames one after another, each generated after the past of the finished ones (paper, section 4 and A.4).

    rollout = Rollout(model, paradigm, noise, sampling, interval_B, total_frames)
    rollout.observe(given_tokens)      # any number of given frames, or none
    tokens = rollout.predict()         # the next frame
    ...

A finished frame enters the past when the next frame is begun, as the paradigm's `cached_kind` at noise level 0: the
last frame never pays for it.

Under classifier-free guidance the batch has a second, unconditional half: the same tokens, with a past of their own in
which the guided conditions were never given. Both halves' outputs make one prediction in the head
(`DiffusionHead.denoiser`).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.conditions import unknown
from magi_video.models.random import SampleNoise
from magi_video.models.sequence import MASKED, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import Sampling

Conditions = dict[str, Tensor]
"""Name → `[B]` or `[B, size]` of one frame."""


class Rollout:
    """The state of one batch of videos in the making.

    Args:
        model: the transformer with its head, in eval mode.
        paradigm: how a frame is generated, and as what it enters the past.
        noise: one generator a sample; its number is the batch size B.
        sampling: steps, sampler, guidance; what it leaves open is the paper's (`DEFAULTS`).
        interval_B: interval of every sample, 1…`max_interval` of the model.
        total_frames: frames that the rollout may reach, given ones included; None for an unbounded one ("rope").
        past: of B samples, 2B under guidance; what the paradigm makes, if not given.
        negative: name → `[B, …]`, the value of a guided condition in the unconditional half (a negative text); unknown
            if not given.

    Raises:
        MagiError: an interval is out of range; frames are to stay in sight beyond the window (`Sampling.sink_frames`,
            `strided_frames`) and no past is given that keeps them.
    """

    def __init__(
        self,
        model: MagiVideoTransformer,
        paradigm: Paradigm,
        noise: SampleNoise,
        sampling: Sampling,
        interval_B: Tensor,
        total_frames: int | None,
        *,
        past: Past | None = None,
        negative: dict[str, Tensor] | None = None,
    ) -> None:
        for interval in interval_B.tolist():
            model.check_interval(interval)
        self.model = model
        self.paradigm = paradigm
        self.noise = noise
        self.sampling = sampling.resolve(model.diffusion_head, tokens=model.num_tokens)
        self.batch = len(noise.generators)
        self.halves = 2 if self.sampling.guided else 1
        self.negative = negative or {}
        self.interval_R = interval_B.to(noise.device).repeat(self.halves)  # R rows: B, or 2B with guidance
        self.total_frames = total_frames
        if past is None and (self.sampling.sink_frames or self.sampling.strided_frames):
            raise MagiError(
                "sink_frames and strided_frames need a past that keeps them: what a paradigm makes has the window alone"
            )
        self.past = past or paradigm.make_past(model, self.halves * self.batch, total_frames)
        self._positions = None if total_frames is None else model.frame_positions(total_frames).to(noise.device)
        self.begun = 0  # frames observed or predicted
        self.predicted = 0
        self._pending: list[FrameSequence] = []  # finished frames that have yet to enter the past

    @property
    def step_frames(self) -> int:
        """Frames that the next step makes."""
        return self.paradigm.step_frames(self.model, self.begun, self.total_frames)

    @torch.no_grad()
    def observe(self, tokens_BND: Tensor, conditions: Conditions | None = None) -> None:
        """Append a given, complete frame.

        Args:
            tokens_BND: its clean tokens.
            conditions: name → `[B]` or `[B, size]` of this frame (its action: the one that led to it).
        """
        self._enter_past(1)
        self._finish(tokens_BND[:, None].repeat(self.halves, 1, 1, 1), [conditions or {}])

    def predict(self, conditions: Conditions | None = None) -> Tensor:
        """Generate the next frame, tokens `[B, N, D]` float32; arguments as of `observe`."""
        return self.predict_frames([conditions or {}])[:, 0]

    @torch.no_grad()
    def predict_frames(self, conditions: Sequence[Conditions]) -> Tensor:
        """Generate the next frames, as many as conditions are given, in one step: tokens `[B, S, N, D]` float32."""
        self._enter_past(len(conditions))
        shape = (self.halves * self.batch, len(conditions), self.model.num_tokens, self.model.token_dim)
        tokens_RSND = torch.zeros(shape, device=self.noise.device)
        masked_RSN = torch.ones(shape[:3], dtype=torch.bool, device=self.noise.device)
        frames = self._frames(self.begun, tokens_RSND, masked_RSN, MASKED, conditions)
        self.paradigm.generate(self.model, self.past, frames, self.noise, self.sampling.at_frame(self.predicted))
        self.predicted += len(conditions)
        self._finish(frames.tokens_BSND, conditions)
        return frames.tokens_BSND[: self.batch]

    def _enter_past(self, more: int) -> None:
        """Let the finished frames enter the past, when so many more are begun."""
        if self.total_frames is not None and self.begun + more > self.total_frames:
            raise MagiError(
                f"the rollout was planned for {self.total_frames} frames and cannot go past them: "
                "ask for more frames at its start"
            )
        for finished in self._pending:
            if self.halves == 2:  # the caller may have edited the frame in place: its conditional half
                finished.tokens_BSND[self.batch :] = finished.tokens_BSND[: self.batch]
            self.past.append(self.paradigm.as_past(self.model, self._with_noise(finished)))
        self._pending = []

    def _with_noise(self, finished: FrameSequence) -> FrameSequence:
        """A finished frame with the noise and the level of the past; the frame of the caller stays as it is."""
        tokens_R1ND, conditions = finished.tokens_BSND, finished.conditions
        if sigma := self.sampling.past_noise:
            tokens_R1ND = tokens_R1ND + sigma * self.noise.normal(*tokens_R1ND.shape[1:]).repeat(self.halves, 1, 1, 1)
        if level := self.sampling.past_level:
            conditions = conditions | {NOISE_LEVEL: torch.full_like(conditions[NOISE_LEVEL], level)}
        return replace(finished, tokens_BSND=tokens_R1ND, conditions=conditions)

    def _finish(self, tokens_RSND: Tensor, conditions: Sequence[Conditions]) -> None:
        for s, one in enumerate(conditions):
            tokens = tokens_RSND[:, s : s + 1]
            nothing_masked = torch.zeros(tokens.shape[:3], dtype=torch.bool, device=tokens.device)
            kind = self.paradigm.cached_kind
            self._pending.append(self._frames(self.begun, tokens, nothing_masked, kind, [one]))
            self.begun += 1

    def _frames(
        self, first: int, tokens_RSND: Tensor, masked_RSN: Tensor, kind: int, conditions: Sequence[Conditions]
    ) -> FrameSequence:
        """Frames `first`, … as a sequence; it shares `tokens_RSND` and `masked_RSN`, which generation fills in."""
        number_S = torch.arange(first, first + len(conditions), dtype=torch.float64, device=tokens_RSND.device)
        position_S = number_S if self._positions is None else self._positions[first : first + len(conditions)]
        values = [self._both_halves(one, tokens_RSND.device) for one in conditions]
        return FrameSequence(
            tokens_BSND=tokens_RSND,
            masked_BSN=masked_RSN,
            kind_S=torch.full((len(conditions),), kind, device=tokens_RSND.device),
            position_S=position_S,
            interval_B=self.interval_R,
            conditions={name: torch.cat([one[name] for one in values], dim=1) for name in values[0]},
        )

    def _both_halves(self, conditions: Conditions, device: torch.device) -> Conditions:
        """Conditions of one frame for the R rows."""
        values = self._values(conditions, device)
        if self.halves == 1:
            return values
        free = {name: value for name, value in conditions.items() if name not in self.sampling.guide}
        negative = {name: value for name, value in self.negative.items() if name in self.sampling.guide}
        uncond = self._values(free | negative, device)
        return {name: torch.cat([value, uncond[name]]) for name, value in values.items()}

    def _values(self, given: Conditions, device: torch.device) -> Conditions:
        """Every condition of one frame of B samples: as given, else unknown; noise level 0."""
        specs = self.model.condition_tokens.specs
        values = {name: unknown(spec, self.batch, 1, device) for name, spec in specs.items()}
        values |= {name: value.to(device, non_blocking=True)[:, None] for name, value in given.items() if name in specs}
        return values | {NOISE_LEVEL: torch.zeros(self.batch, 1, dtype=torch.long, device=device)}
