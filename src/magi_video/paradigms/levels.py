"""Noise levels of Diffusion Forcing (Chen et al. 2024): from level to level in generation, and weights by level."""

from typing import Literal

import torch
from torch import Tensor

Weights = Literal["none", "min-snr", "fused"]


def schedule_matrix(schedule: str, steps: int, frames: int, uncertainty: float = 1.0) -> Tensor:
    """The levels 0 (clean) … `steps` (pure noise) of some frames as they are made, integers `[rows, frames]`.

    Row m + 1 follows row m by one pass. "pyramid": clip(S + ⌊t u⌋ − m, 0, S) for frame t, in S + ⌊(F − 1) u⌋ + 1 rows;
    "autoregressive": the pyramid with u = S, each frame finished before the next is begun; "full-sequence": all frames
    at once. The authors' "trapezoid" is not offered: its index slips at the first frame.

    Args:
        schedule: one of `sampling.Schedule`.
        steps: S.
        frames: F.
        uncertainty: u of the pyramid, levels by which a frame stays behind the one before it.
    """
    if schedule == "full-sequence":
        uncertainty = 0.0
    elif schedule == "autoregressive":
        uncertainty = float(steps)
    behind_F = (torch.arange(frames, dtype=torch.float64) * uncertainty).floor().long()
    row_M1 = torch.arange(steps + int(behind_F[-1]) + 1)[:, None]
    return (steps + behind_F - row_M1).clamp(0, steps)


def velocity_weights(snr_BT: Tensor, weights: str, clip: float = 5.0, decay: float = 0.96) -> Tensor:
    """Weight `[B, T]` of the squared error of v by signal-to-noise ratio, as in the authors' code (`diffusion.py`).

    "min-snr": min(SNR, clip)/(SNR + 1) (Hang et al. 2023). "fused": what the frames before a frame say of it counts as
    signal of its own. With s = min(SNR, clip)/clip, c_1 = s_1, c_t = decay · c_{t−1} + (1 − decay) · s_t:
    F_t = 1 − (1 − decay · c_{t−1})(1 − s_t) with c_0 = 0, G_t the same with SNR/clip in the place of the last s_t, and
    the weight is clip · F/(clip · G + 1). "none": 1.

    Args:
        snr_BT: ᾱ/(1 − ᾱ) of every frame's level.
        weights: one of `Weights`.
        clip, decay: see above.
    """
    if weights == "none":
        return torch.ones_like(snr_BT)
    clipped_BT = snr_BT.clamp(max=clip)
    if weights == "min-snr":
        return clipped_BT / (snr_BT + 1)
    own_BT = clipped_BT / clip
    past_B, past_BT = own_BT[:, 0], torch.zeros_like(own_BT)
    for t in range(1, own_BT.shape[1]):
        past_BT[:, t] = past_B
        past_B = decay * past_B + (1 - decay) * own_BT[:, t]
    fused_BT = 1 - (1 - decay * past_BT) * (1 - own_BT)
    unclipped_BT = 1 - (1 - decay * past_BT) * (1 - snr_BT / clip)
    return clip * fused_BT / (clip * unclipped_BT + 1)
