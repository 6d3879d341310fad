"""A rollout: frames one after another, each by masked diffusion over the past (paper, section 4 and appendix A.4).

    rollout = Rollout(model, cached_kind, noise, settings, interval_B, total_frames)
    rollout.observe(given_tokens)      # any number of given frames, or none
    tokens = rollout.predict()         # the next frame; K passes over the cache
    ...

A finished frame enters the past as an observation at noise level 0, when the next frame is begun: the last frame never
pays for it. Where that is faster, one pass reads it together with the first mask step of the next frame.

Under classifier-free guidance the batch has a second half: the same tokens, with a past of their own in which the
guided conditions were never given. Both halves' outputs make one prediction in the head (`DiffusionHead.predict`).
"""

from dataclasses import replace

import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.fast.probes import packing_pays
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.cache import pick
from magi_video.models.conditions import unknown
from magi_video.models.linear import pack_linears
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask
from magi_video.models.transformer import MagiTransformer
from magi_video.sampling.noise import SampleNoise
from magi_video.sampling.schedule import unmasking_schedule
from magi_video.sampling.settings import SamplingSettings


class Rollout:
    """The state of one batch of videos in the making.

    Args:
        model: the transformer with its head, in eval mode; bfloat16 weights on a CPU are packed where that pays.
        cached_kind: the kind of frame as which finished frames enter the past (the paradigm's `cached_kind`).
        noise: one generator a sample; its number is the batch size B.
        settings: steps and sampler.
        interval_B: interval of every sample, 1…`max_interval` of the model.
        total_frames: frames that the rollout may reach, given ones included; None for an unbounded one ("rope").
        use_cache: False recomputes the whole past in every pass: the same frames, for comparison and tests.
        against: name → `[B, …]`, what the second half of guidance is told of a guided condition (a negative text);
            unknown if not given.
    """

    def __init__(
        self,
        model: MagiTransformer,
        cached_kind: int,
        noise: SampleNoise,
        settings: SamplingSettings,
        interval_B: Tensor,
        total_frames: int | None,
        *,
        use_cache: bool = True,
        against: dict[str, Tensor] | None = None,
    ) -> None:
        for interval in interval_B.tolist():
            model.check_interval(interval)
        if model.dtype == torch.bfloat16 and packing_pays():
            pack_linears(model)
        self.model = model
        self.cached_kind = cached_kind
        self.noise = noise
        self.settings = settings
        self.batch = len(noise.generators)
        self.halves = 2 if settings.guided else 1
        self.against = against or {}
        self.interval_R = interval_B.to(noise.device).repeat(self.halves)  # R rows: B, or 2B with guidance
        self.total_frames = total_frames
        if settings.refresh > 1 and not use_cache:
            raise MagiError("mask steps can reuse each other's work only with the cache")
        self.past: CachedPast | RecomputedPast = RecomputedPast(model)
        if use_cache:
            self.past = CachedPast(model, self.halves * self.batch, total_frames, remember=settings.refresh > 1)
        self.schedule = unmasking_schedule(model.num_tokens, settings.num_mask_steps)
        self._positions = None if total_frames is None else model.frame_positions(total_frames)
        self.begun = 0  # frames observed or predicted
        self._pending: FrameSequence | None = None  # the finished frame that has yet to enter the past

    @torch.no_grad()
    def observe(self, tokens_BND: Tensor, conditions: dict[str, Tensor] | None = None) -> None:
        """Append a given, complete frame.

        Args:
            tokens_BND: its clean tokens.
            conditions: name → `[B]` or `[B, size]` of this frame (its action: the one that led to it).
        """
        tokens_RND = tokens_BND.repeat(self.halves, 1, 1)
        nothing_hidden = torch.zeros(tokens_RND.shape[:2], dtype=torch.bool, device=tokens_RND.device)
        self._check_room()
        if (finished := self._finished()) is not None:
            self.past.append(finished)
        self._pending = self._frame(tokens_RND, nothing_hidden, self.cached_kind, conditions)
        self.begun += 1

    @torch.no_grad()
    def predict(self, conditions: dict[str, Tensor] | None = None) -> Tensor:
        """Generate the next frame, tokens `[B, N, D]` float32; arguments as in `observe`."""
        model, noise = self.model, self.noise
        self._check_room()
        rows = self.halves * self.batch
        tokens_RND = torch.zeros(rows, model.num_tokens, model.token_dim, device=noise.device)
        hidden_RN = torch.ones(rows, model.num_tokens, dtype=torch.bool, device=noise.device)
        frame = self._frame(tokens_RND, hidden_RN, MASKED, conditions)
        order_RN = noise.permutation(model.num_tokens).repeat(self.halves, 1)
        before = done = 0
        for step, count in enumerate(self.schedule):
            places_Rn = order_RN[:, done : done + count]
            frame.places_Bn = places_Rn
            frame.read_Bn = None if step % self.settings.refresh == 0 else order_RN[:, before : done + count]
            z_RnW = self.past.read(frame, self._finished())
            predicted_BnD = model.diffusion_head.sample(
                z_RnW,
                noise,
                self.settings.num_denoise_steps,
                sampler=self.settings.sampler,
                first_step=self.settings.first_step,
                temperature=self.settings.temperature,
                guidance=self.settings.guidance((done + count) / model.num_tokens),
            )
            predicted_RnD = predicted_BnD.repeat(self.halves, 1, 1)
            tokens_RND.scatter_(1, places_Rn[..., None].expand_as(predicted_RnD), predicted_RnD)
            hidden_RN.scatter_(1, places_Rn, False)
            before, done = done, done + count
        self._pending = self._frame(tokens_RND, hidden_RN, self.cached_kind, conditions)
        self.begun += 1
        return tokens_RND[: self.batch]

    def _finished(self) -> FrameSequence | None:
        """The finished frame that enters the past now, if there is one."""
        finished, self._pending = self._pending, None
        if finished is not None and self.halves == 2:  # who took the frame may have changed the half that was his
            finished.tokens_BSND[self.batch :] = finished.tokens_BSND[: self.batch]
        return finished

    def _check_room(self) -> None:
        if self.total_frames is not None and self.begun >= self.total_frames:
            raise MagiError(
                f"the rollout was planned for {self.total_frames} frames and cannot go past them: "
                "ask for more frames at its start"
            )

    def _frame(
        self, tokens_RND: Tensor, hidden_RN: Tensor, kind: int, conditions: dict[str, Tensor] | None
    ) -> FrameSequence:
        """The next frame as a sequence of one; it shares `tokens_RND` and `hidden_RN`, which mask steps fill in."""
        device = tokens_RND.device
        position = float(self.begun if self._positions is None else self._positions[self.begun])
        values = self._told(conditions or {}, device)
        if self.halves == 2:
            free = {name: value for name, value in (conditions or {}).items() if name not in self.settings.guide}
            against = {name: value for name, value in self.against.items() if name in self.settings.guide}
            other = self._told(free | against, device)
            values = {name: torch.cat([value, other[name]]) for name, value in values.items()}
        frame = FrameSequence(
            tokens_BSND=tokens_RND[:, None],
            hidden_BSN=hidden_RN[:, None],
            kind_S=torch.tensor([kind], device=device),
            position_S=torch.tensor([position], dtype=torch.float64, device=device),
            interval_B=self.interval_R,
            conditions=values,
        )
        frame.constants = self.model.constants(frame)
        return frame

    def _told(self, given: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Every condition of one frame of B samples: as given, else unknown; noise level 0."""
        specs = self.model.condition_tokens.specs
        values = {name: unknown(spec, self.batch, 1, device) for name, spec in specs.items()}
        values |= {name: value.to(device)[:, None] for name, value in given.items() if name in specs}
        return values | {NOISE_LEVEL: torch.zeros(self.batch, 1, dtype=torch.long, device=device)}


JOINED_PLACES = 128
"""On CPUs, places up to which two frames share a pass: the products of more rows gain nothing from each other."""


class CachedPast:
    """The past as keys and values; `batch` counts both halves of guidance."""

    def __init__(self, model: MagiTransformer, batch: int, total_frames: int | None, remember: bool = False) -> None:
        self.model = model
        self.cache = model.make_cache(batch, total_frames)
        if remember:
            self.cache.remember()
        places = batch * model.num_places
        self.joins = self.cache.device.type != "cpu" or places <= JOINED_PLACES

    def read(self, frame: FrameSequence, finished: FrameSequence | None = None) -> Tensor:
        """z `[B, n, W]` of the tokens that are asked of a frame that follows the past.

        Args:
            frame: what is to be predicted.
            finished: the frame before, which becomes part of the past in the same pass.
        """
        if finished is not None and not self.joins:
            self.append(finished)
            finished = None
        sequence = frame
        if finished is not None:
            sequence = FrameSequence.join([finished, frame])
            sequence.predicted, sequence.places_Bn = slice(-1, None), frame.places_Bn
        z_BnW = self.model(sequence, self.cache)[:, 0]
        if finished is not None:
            self.cache.advance()
        return z_BnW

    def append(self, frame: FrameSequence) -> None:
        """Make a finished frame part of the past."""
        self.model(replace(frame, predicted=slice(0, 0)), self.cache)  # its keys and values alone
        self.cache.advance()


class RecomputedPast:
    """The past as frames, read again in every pass: the slow reference of `CachedPast`."""

    def __init__(self, model: MagiTransformer) -> None:
        self.model = model
        self.window = model.config.num_frames if model.config.temporal_position == "rope" else None
        self.frames: list[FrameSequence] = []

    def read(self, frame: FrameSequence, finished: FrameSequence | None = None) -> Tensor:
        """See `CachedPast.read`."""
        if finished is not None:
            self.append(finished)
        sequence = FrameSequence.join([*self.frames, frame])
        sequence.mask_SS = causal_mask(len(self.frames) + 1, self.window, frame.hidden_BSN.device)
        assert frame.places_Bn is not None
        return pick(self.model(sequence)[:, -1], frame.places_Bn)

    def append(self, frame: FrameSequence) -> None:
        """See `CachedPast.append`."""
        self.frames.append(frame)
