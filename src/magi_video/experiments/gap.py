"""The gap between training and inference, which is the paper's argument against masked teacher forcing, as a number."""

from pathlib import Path

import torch

from magi_video.experiments.clips import Clips
from magi_video.models.architecture import NOISE_LEVEL
from magi_video.models.conditions import unknown
from magi_video.models.head import DiffusionHead
from magi_video.models.sequence import MASKED, FrameSequence, causal_mask
from magi_video.paradigms import MaskRatio, find_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.video.image import to_model_range

DRAWS = 8
"""Diffusion draws for each token."""


@torch.no_grad()
def last_frame_loss(model: Path, clips_NTHWC: Clips, interval: int) -> dict[str, float]:
    """Head loss of the last frame, all of it hidden, given the true frames before it in two ways.

    Returns:
        as_generated: the past as inference shows it, complete; as_trained: the past as training showed it: complete for
        complete teacher forcing (the same number), masked at the training's ratios for masked teacher forcing.
    """
    pipe = MagiVideoPipeline.from_pretrained(model)
    transformer = pipe.transformer
    tokens_NTPD = transformer.patchify(pipe.codec.encode(to_model_range_all(clips_NTHWC)))
    batch, frames, places, _ = tokens_NTPD.shape
    kind = find_paradigm(pipe.config.forcing).cached_kind
    masked_past = MaskRatio().draw(batch, frames, places, torch.Generator().manual_seed(0), tokens_NTPD.device)
    losses = {}
    for name, hidden_NTP in {"as_generated": torch.zeros_like(masked_past), "as_trained": masked_past}.items():
        hidden_NTP = hidden_NTP & (kind == MASKED)  # complete teacher forcing never hides the past
        hidden_NTP[:, -1] = True
        values = {key: unknown(spec, batch, frames, "cpu") for key, spec in transformer.condition_tokens.specs.items()}
        values[NOISE_LEVEL] = torch.zeros(batch, frames, dtype=torch.long)
        sequence = FrameSequence(
            tokens_BSND=tokens_NTPD,
            masked_BSN=hidden_NTP,
            kind_S=torch.tensor([kind] * (frames - 1) + [MASKED]),
            position_S=torch.arange(frames),
            interval_B=torch.full((batch,), interval),
            conditions=values,
            mask_SS=causal_mask(frames),
            predicted=1,
        )
        z_MW = transformer(sequence).flatten(0, 2).float()
        target_MD = tokens_NTPD[:, -1].flatten(0, 1).float()
        generator = torch.Generator().manual_seed(0)
        uniform_RM = torch.rand(DRAWS, len(target_MD), generator=generator)
        eps_RMD = torch.randn(DRAWS, *target_MD.shape, generator=generator)
        head = transformer.diffusion_head
        assert isinstance(head, DiffusionHead)  # the worlds' recipes have one
        losses[name] = round(float(head.loss(target_MD, z_MW, uniform_RM, eps_RMD).mean()), 4)
    return losses


def to_model_range_all(clips_NTHWC: Clips) -> torch.Tensor:
    """`[N, T, 3, H, W]` in [−1, 1]."""
    return torch.stack([to_model_range(clip) for clip in clips_NTHWC])
