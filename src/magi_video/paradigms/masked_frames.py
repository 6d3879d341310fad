"""What the paradigms of masked frames share: their loss, and generation by masked diffusion over the frame cache."""

from abc import abstractmethod

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.random import Generators, SampleNoise
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Clip, Paradigm
from magi_video.paradigms.masking import masked_generation
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling


class MaskedFrames(Paradigm):
    """Frames whose tokens are masked at random: the loss is on the masked tokens, generation is MAR's."""

    @abstractmethod
    def sequence(self, clip: Clip, masked_BTN: Tensor, generator: Generators) -> FrameSequence:
        """The training sequence of a clip whose frames 1…T, the ones predicted, have `masked_BTN` masked.

        Args:
            clip: complete frames.
            masked_BTN: True where a token is masked.
            generator: of the noise that is injected.
        """

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
        """See `Paradigm.total_loss`: over the tokens that are counted."""
        self.check_clip(clip.tokens_BTND.shape[1])
        masked_BTN = self.draw_masks(clip, generator)
        clip = Clip(clip.tokens_BTND, clip.interval_B, model.condition_tokens.drop(clip.conditions, generator))
        z_BTNW = self.read(model, self.sequence(clip, masked_BTN, generator), generator)
        predicted = z_BTNW.shape[1]  # the frames before them are only seen
        target = Clip(clip.tokens_BTND[:, -predicted:], clip.interval_B)
        counted_BTN = self.counted(masked_BTN)[:, -predicted:]
        return head_loss(model, target, z_BTNW, counted_BTN, self.diffusion_batch_mul, generator)

    @override
    def generate(
        self,
        model: MagiVideoTransformer,
        past: Past,
        frames: FrameSequence,
        noise: SampleNoise,
        sampling: ResolvedSampling,
    ) -> None:
        """See `Paradigm.generate`: one frame, by masked diffusion."""
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
        clip: the target: the clip itself, never what masking or noise made of it.
        z_BTNW: the transformer's output for every token.
        counted_BTN: True for the tokens that have a loss.
        repeats: independent draws of time and noise for each of them, where the head denoises.
        generator: source of the draws.
    """
    with torch.autocast(z_BTNW.device.type, enabled=False):  # the head is float32 throughout
        return model.diffusion_head.total_loss(
            clip.tokens_BTND.flatten(1, 2), z_BTNW.flatten(1, 2), counted_BTN.flatten(1), repeats, generator
        )
