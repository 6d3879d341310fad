"""What tests of the pipeline share: few steps, seeds, pictures."""

import numpy as np
import torch

STEPS = {"num_mask_steps": 2, "num_denoise_steps": 3}


def seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def picture(seed: int = 0, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
