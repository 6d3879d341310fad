"""A batch from the loader as what a paradigm learns from."""

import torch
from torch import Tensor

from magi_video.models.architecture import ACTION, LABEL, TEXT
from magi_video.models.sequence import Clip
from magi_video.models.transformer import MagiVideoTransformer


def as_clip(
    model: MagiVideoTransformer, batch: dict[str, Tensor], latents_BTCHW: Tensor, text_BTLW: Tensor | None = None
) -> Clip:
    """Latents and what is known of them.

    Args:
        model: says which conditions count.
        batch: items of a `ClipDataset`, on the latents' device.
        latents_BTCHW: normalised, of its frames.
        text_BTLW: vectors of the captions; None for a model without text.
    """
    conditions, frames = {}, latents_BTCHW.shape[1]
    if ACTION in model.condition_tokens.specs:
        conditions[ACTION] = batch["action"].masked_fill(~batch["action_known"][..., None], torch.nan)
    if LABEL in model.condition_tokens.specs:
        conditions[LABEL] = batch["label"][:, None].expand(-1, frames)
    if text_BTLW is not None:
        conditions[TEXT] = text_BTLW
    return Clip(model.patchify(latents_BTCHW), batch["interval"], conditions, learned_BT=batch["learned"])
