"""Tokens that lie apart appear first, the gaps between them last, in few steps: `Sampling.order` "sparse-to-dense"."""

import torch
from torch import Tensor
from typing_extensions import override

from magi_video.models.random import SampleNoise
from magi_video.paradigms.masked_frames import RandomOrder
from magi_video.sampling.sampling import ResolvedSampling

LATER_SHARES = (3 / 16, 1 / 16)
"""Shares of the mask steps of stages 1 and 2; stage 0 has the rest. GtR's paper reports 2.67, 10.67 and 64 tokens a
step, which with quarter, quarter and half of 256 tokens are 24, 6 and 2 steps."""


def find_stages(num_tokens: int, columns: int, device: torch.device | str = "cpu") -> Tensor:
    """The stage of each token, `[M]`: 0 where (row + column) mod 4 is 0, 1 where it is 2.

    Stage 2 is where it is odd: as on a chessboard, the neighbours of such a token are all of stages 0 and 1.
    """
    place_M = torch.arange(num_tokens, device=device)
    diagonal_M = (place_M // columns + place_M % columns) % 4
    return torch.where(diagonal_M % 2 == 1, 2, diagonal_M // 2)


class SparseToDense(RandomOrder):
    """First tokens that lie apart, in many steps; then those between, which their neighbours nearly decide, in few.

    The order of GtR (Generation then Reconstruction; Yan et al., ICLR 2026, arXiv 2510.17171), written from its paper:
    no code of it was public. Within a stage the order is uniformly random. Its choice of tokens that take more denoise
    steps is not built; `Sampling.last_denoise_steps` lets them fall over the mask steps.
    """

    @override
    def __init__(self, noise: SampleNoise, num_tokens: int, columns: int, sampling: ResolvedSampling) -> None:
        super().__init__(noise, num_tokens, columns, sampling)
        stage_Bm = find_stages(num_tokens, columns, self.left_Bm.device)[self.left_Bm]
        self.left_Bm = self.left_Bm.gather(1, stage_Bm.argsort(dim=1, stable=True))

    @override
    @staticmethod
    def counts(num_tokens: int, columns: int, mask_steps: int) -> list[int]:
        """min(`mask_steps`, M) positive counts that sum to M. Steps that a stage has no token for go to the next one.

        With two steps stages 0 and 1 appear together, with one all.
        """
        sizes = torch.bincount(find_stages(num_tokens, columns), minlength=3).tolist()
        later = [max(1, round(share * mask_steps)) for share in LATER_SHARES]
        if mask_steps < 3:
            sizes, later = [sum(sizes[: 4 - mask_steps]), *sizes[4 - mask_steps :]], later[: mask_steps - 1]
        steps = [mask_steps - sum(later), *later]
        counts: list[int] = []
        for stage, size in enumerate(sizes):
            taken = min(sum(steps[: stage + 1]) - len(counts), size)
            counts += [size * (i + 1) // taken - size * i // taken for i in range(taken)]
        return counts
