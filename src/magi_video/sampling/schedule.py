"""How many tokens of a frame each mask step predicts (MAR's cosine schedule)."""

import math

from magi_video.errors import MagiError


def unmasking_schedule(num_tokens: int, num_mask_steps: int) -> list[int]:
    """Tokens newly predicted at each step, in order: one pass of the transformer for each.

    After step k of K, max(1, min(masked − 1, floor(N · cos(π/2 · (k+1)/K)))) tokens stay masked (MAR): every step
    predicts at least one token, and the last step predicts all that are left. N = 256 and K = 64 give 64 steps, the
    first 13 of one token each.

    Args:
        num_tokens: N of a frame.
        num_mask_steps: K ≥ 1; more than N count as N, since every step must predict something.

    Returns:
        min(K, N) positive counts that sum to N.
    """
    if num_mask_steps < 1:
        raise MagiError(f"mask steps must be at least 1, got {num_mask_steps}")
    steps = min(num_mask_steps, num_tokens)
    counts = []
    masked = num_tokens
    for k in range(steps):
        left = max(1, min(masked - 1, math.floor(num_tokens * math.cos(math.pi / 2 * (k + 1) / steps))))
        left = 0 if k == steps - 1 else left
        counts.append(masked - left)
        masked = left
    return counts
