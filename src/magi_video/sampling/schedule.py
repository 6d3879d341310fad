"""How many tokens of a frame each mask step predicts (MAR's cosine schedule)."""

import math

from magi_video.errors import MagiError


def unmasking_schedule(num_tokens: int, num_mask_steps: int) -> list[int]:
    """Tokens newly predicted at each step, in order; steps with nothing to predict are left out.

    After step k of K, floor(N · cos(π/2 · (k+1)/K)) tokens stay masked, at least 1 until the last step takes the rest.

    Args:
        num_tokens: N of a frame.
        num_mask_steps: K ≥ 1; more than N serve no purpose, since every step must predict something.

    Returns:
        Positive counts that sum to N.
    """
    if num_mask_steps < 1:
        raise MagiError(f"mask steps must be at least 1, got {num_mask_steps}")
    counts = []
    masked = num_tokens
    for k in range(num_mask_steps):
        left = math.floor(num_tokens * math.cos(math.pi / 2 * (k + 1) / num_mask_steps))
        left = 0 if k == num_mask_steps - 1 else max(left, 1)
        if left < masked:
            counts.append(masked - left)
            masked = left
    return counts
