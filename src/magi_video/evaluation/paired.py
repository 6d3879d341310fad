"""How far a generated continuation is from the true one, frame by frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from magi_video.errors import MagiError
from magi_video.evaluation.features import Network

MAX_PSNR = 100.0
"""PSNR of equal frames, dB, which has no finite value."""
SSIM_RULE = {
    "window": "Gaussian, 11 x 11, sigma 1.5",
    "border": "pixels are reflected at the edge and every position counts (torchmetrics); "
    "scikit-image leaves the outer 5 positions out",
}
"""What an SSIM hangs on besides the frames."""


def psnr(real_THWC: np.ndarray, fake_THWC: np.ndarray) -> np.ndarray:
    """PSNR of each frame, dB, at most `MAX_PSNR`, `[T]`; clips are uint8 `[T, H, W, 3]`."""
    difference = real_THWC.astype(np.float64) - fake_THWC
    with np.errstate(divide="ignore"):
        return np.minimum(10 * np.log10(255**2 / np.square(difference).mean((1, 2, 3))), MAX_PSNR)


def paired_errors(
    real_THWC: np.ndarray, fake_THWC: np.ndarray, perceptual: Network | None, device: torch.device | str = "cpu"
) -> dict[str, np.ndarray]:
    """PSNR (dB, at most 100), SSIM and, with a network, LPIPS of each frame; clips are uint8 `[T, H, W, 3]`.

    Returns:
        Arrays `[T]` by the names psnr, ssim, lpips.
    """
    if real_THWC.shape != fake_THWC.shape:
        raise MagiError(f"paired clips have the shapes {real_THWC.shape} and {fake_THWC.shape}; expected one shape")
    real, fake = (
        torch.from_numpy(np.ascontiguousarray(one)).permute(0, 3, 1, 2).float() for one in (real_THWC, fake_THWC)
    )
    ssim_T: Any = structural_similarity_index_measure(fake, real, data_range=255.0, reduction="none")
    errors = {"psnr": psnr(real_THWC, fake_THWC), "ssim": np.atleast_1d(ssim_T.double().numpy())}
    if perceptual is not None:
        pixels = [(one / 127.5 - 1).to(device) for one in (fake, real)]
        errors["lpips"] = perceptual(*pixels).double().flatten().cpu().numpy()
    return errors
