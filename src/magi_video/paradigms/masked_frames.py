"""What the paradigms of masked frames share: their loss, and generation by masked diffusion over the frame cache."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.head import TokenHead
from magi_video.models.random import Generators, SampleNoise
from magi_video.models.sequence import Clip, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.paradigms.masking import unmasking_schedule
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling


class MaskedFrames(Paradigm):
    """Frames whose tokens are masked at random: the loss is on the masked tokens, generation is MAR's."""

    @abstractmethod
    def sequence(self, clip: Clip, masked_BTN: Tensor) -> FrameSequence:
        """The training sequence of a clip whose frames 1…T, the ones predicted, have `masked_BTN` masked.

        Args:
            clip: complete frames, and what later frames see of them (`Clip.shown`).
            masked_BTN: True where a token is masked.
        """

    def show_past(self, model: MagiVideoTransformer, clip: Clip, generator: Generators) -> Clip:
        """The clip with what later frames see of its frames, as `exposure` says."""
        past_BTND, level_BT = self.exposure.show(model, clip, generator, self.one_level)
        return replace(clip, past_BTND=past_BTND, level_BT=level_BT)

    def draw_masks(self, clip: Clip, generator: Generators) -> Tensor:
        """Which tokens of a clip training masks, boolean `[B, T, N]`: by `mask_ratio`, each frame by itself."""
        batch, frames, tokens, _ = clip.tokens_BTND.shape
        return self.mask_ratio.draw(batch, frames, tokens, generator, clip.tokens_BTND.device)

    def counted(self, masked_BTN: Tensor) -> Tensor:
        """Which tokens have a loss, boolean `[B, T, N]`: every masked one."""
        return masked_BTN

    @override
    def total_loss(
        self, model: MagiVideoTransformer, clip: Clip, generator: Generators = None
    ) -> tuple[Tensor, Tensor]:
        """Over the tokens that are counted."""
        self.check_clip(clip.tokens_BTND.shape[1])
        masked_BTN = self.draw_masks(clip, generator)
        clip = replace(clip, conditions=model.condition_tokens.drop(clip.conditions, generator))
        sequence = self.sequence(self.show_past(model, clip, generator), masked_BTN)
        self.exposure.paint(model, sequence)
        z_BPNW = self.read(model, sequence, generator)
        predicted = z_BPNW.shape[1]  # the frames before them are only seen
        target = Clip(clip.tokens_BTND[:, -predicted:], clip.interval_B)
        learned_BT1 = True if clip.learned_BT is None else clip.learned_BT[..., None]
        counted_BPN = (self.counted(masked_BTN) & learned_BT1)[:, -predicted:]
        total, count = head_loss(model, target, z_BPNW, counted_BPN, self.diffusion_batch_mul, generator)
        learned = self.exposure.learn(model.diffusion_head, target.tokens_BTND, z_BPNW, counted_BPN, generator)
        return total + learned, count

    @override
    def generate(
        self,
        model: MagiVideoTransformer,
        past: Past,
        frames: FrameSequence,
        noise: SampleNoise,
        sampling: ResolvedSampling,
    ) -> None:
        """One frame, by masked diffusion."""
        masked_generation(model, past, frames, noise, sampling)


def own_frame(masked_TN: Tensor) -> Tensor:
    """`[T, N, T, N]`: True where two tokens are of one frame and the second is not masked."""
    frames, tokens = masked_TN.shape
    same_TT = torch.eye(frames, dtype=torch.bool, device=masked_TN.device)
    return (same_TT[:, None, :, None] & ~masked_TN[None, None]).expand(frames, tokens, frames, tokens)


def head_loss(
    model: MagiVideoTransformer, clip: Clip, z_BTNW: Tensor, counted_BTN: Tensor, repeats: int, generator: Generators
) -> tuple[Tensor, Tensor]:
    """The head's loss (paper, section 4) over some tokens, summed, and their number.

    Args:
        model: has the head.
        clip: the target: the clip itself, never what masking, noise or a model made of it.
        z_BTNW: the transformer's output for every token.
        counted_BTN: True for the tokens that have a loss.
        repeats: independent draws of time and noise for each of them, where the head denoises.
        generator: source of the draws.
    """
    with torch.autocast(z_BTNW.device.type, enabled=False):  # the head is float32 throughout
        return model.diffusion_head.total_loss(
            clip.tokens_BTND.flatten(1, 2), z_BTNW.flatten(1, 2), counted_BTN.flatten(1), repeats, generator
        )


@dataclass(frozen=True)
class MaskStep:
    """One pass over frames in the making, and what the head makes of it.

    Attributes:
        past: the frames before.
        frames: in the making, of R rows: B samples, or 2B with guidance.
        head: of the model.
        noise: one generator a sample.
        options: of the head's `sample`.
        progress: share of the mask steps that are done after this one, in (0, 1].
        appeared_Rm: places that have appeared in the step before, where they and those of this step may be read alone;
            None where all are read.
    """

    past: Past
    frames: FrameSequence
    head: TokenHead
    noise: SampleNoise
    options: dict[str, Any]
    progress: float
    appeared_Rm: Tensor | None = None

    def read(self, places_Bn: Tensor) -> Tensor:
        """z `[R, n, W]` at some places of each sample."""
        return self.past.read(self.frames, *self._places(places_Bn))

    def sample(self, places_Bn: Tensor) -> Tensor:
        """The head's tokens `[B, n, D]` at some places of each sample."""
        return self.past.sample(self.head, self.frames, *self._places(places_Bn), self.noise, self.options)

    def _places(self, places_Bn: Tensor) -> tuple[Tensor, Tensor | None]:
        """Places of all rows, and those whose input has changed."""
        places_Rn = places_Bn.repeat(len(self.frames.tokens_BSND) // len(places_Bn), 1)
        changed = None if self.appeared_Rm is None else torch.cat([self.appeared_Rm, places_Rn], dim=1)
        return places_Rn, changed


class RandomOrder:
    """Tokens appear in a uniformly random order, drawn at the start (MAR).

    Args:
        noise: one generator a sample.
        num_tokens: that appear together, of all their frames, row by row.
        columns: tokens of a row.
        sampling: the choices.
    """

    def __init__(self, noise: SampleNoise, num_tokens: int, columns: int, sampling: ResolvedSampling) -> None:
        self.left_Bm = noise.permutation(num_tokens)

    @staticmethod
    def counts(num_tokens: int, columns: int, mask_steps: int) -> list[int]:
        """Tokens that appear in each mask step, at least one."""
        return unmasking_schedule(num_tokens, mask_steps)

    def predict(self, step: MaskStep, count: int) -> tuple[Tensor, Tensor]:
        """Predict the tokens of a mask step, so many: their places `[B, count]`, and the tokens `[B, count, D]`."""
        places_Bn, self.left_Bm = self.left_Bm[:, :count], self.left_Bm[:, count:]
        return places_Bn, step.sample(places_Bn)


ORDERS: dict[str, type[RandomOrder]] = {"random": RandomOrder}
"""By name, `Sampling.order`; `paradigms/confidence.py` adds its own, and importing
`magi_video.fast.speed`, as the pipeline does, "sparse-to-dense"."""


def unmasking_counts(model: MagiVideoTransformer, sampling: ResolvedSampling, frames: int = 1) -> list[int]:
    """Tokens that appear in each mask step, of so many frames that are made together."""
    return ORDERS[sampling.order].counts(frames * model.num_tokens, model.architecture.grid[1], sampling.mask_steps)


def masked_generation(
    model: MagiVideoTransformer, past: Past, frames: FrameSequence, noise: SampleNoise, sampling: ResolvedSampling
) -> None:
    """Generate frames over K mask steps (paper, section 4; MAR): arguments as of `Paradigm.generate`.

    The tokens of several frames appear together, in one order. The head makes those of each step.
    """
    head = model.diffusion_head
    tokens_RMD = frames.tokens_BSND.view(len(frames.tokens_BSND), -1, model.token_dim)
    masked_RM = frames.masked_BSN.view(len(tokens_RMD), -1)
    tokens, halves = masked_RM.shape[1], len(masked_RM) // len(noise.generators)
    order = ORDERS[sampling.order](noise, tokens, model.architecture.grid[1], sampling)
    if model.canvas_out is not None:
        every_RM = torch.arange(tokens, device=masked_RM.device).expand(len(masked_RM), -1)
        frames.canvas_BCND = model.canvas_out(past.read(frames, every_RM)).view_as(frames.tokens_BSND)
    counts = unmasking_counts(model, sampling, frames.masked_BSN.shape[1])
    appeared_Rn = torch.empty(len(masked_RM), 0, dtype=torch.long, device=masked_RM.device)
    for number, count in enumerate(counts):
        options = {name: getattr(sampling, name) for name in head.options}
        options["guidance"] = sampling.guidance(sum(counts[: number + 1]) / tokens)
        if "denoise_steps" in options:
            options["denoise_steps"] = sampling.denoise_steps_at(number, len(counts))
        appeared_Rm = appeared_Rn if number % sampling.refresh > 0 else None  # what is read again, if not all is
        step = MaskStep(past, frames, head, noise, options, (number + 1) / len(counts), appeared_Rm)
        places_Bn, tokens_BnD = order.predict(step, count)
        appeared_Rn, tokens_RnD = places_Bn.repeat(halves, 1), tokens_BnD.repeat(halves, 1, 1)
        tokens_RMD.scatter_(1, appeared_Rn[..., None].expand_as(tokens_RnD), tokens_RnD)
        masked_RM.scatter_(1, appeared_Rn, False)
