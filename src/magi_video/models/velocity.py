"""The linear head of Diffusion Forcing: z → the velocity of the noisy token that the transformer has read.

v = √ᾱ ε − √(1 − ᾱ) x (Salimans & Ho 2022), on the cosine schedule of the epsilon head. The noisy token and its level
are in z already, so the head has no other input: it cannot denoise a token whose frame the transformer read masked.
"""

from typing import Any, ClassVar, NoReturn, Self

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import Architecture
from magi_video.models.epsilon import CosineHead
from magi_video.models.head import TokenHead, register


@register
class VelocityHead(CosineHead):
    """A linear layer, zero at first."""

    name = "velocity"
    outputs = 1
    samplers = ("ddim",)
    options = ()
    default_first_step: ClassVar[dict[str, int]] = {"ddim": 999}

    def __init__(self, token_dim: int, condition_dim: int) -> None:
        TokenHead.__init__(self, token_dim)
        self.velocity = nn.Linear(condition_dim, token_dim)

    @classmethod
    @override
    def of(cls, architecture: Architecture) -> Self:
        return cls(architecture.token_dim, architecture.width)

    @override
    def reset_parameters(self) -> None:
        """Zero."""
        nn.init.zeros_(self.velocity.weight)
        nn.init.zeros_(self.velocity.bias)

    @override
    def loss(self, target_MD: Tensor, z_MW: Tensor, uniform_RM: Tensor, eps_RMD: Tensor) -> Tensor:
        """MSE on v, where z is of the tokens with this very noise (R = 1)."""
        chain, step = self.chain(target_MD.device), (uniform_RM * len(self.chain(target_MD.device).signal)).long()
        v_RMD = chain.signal[step][..., None] * eps_RMD - chain.sigma[step][..., None] * target_MD
        return F.mse_loss(self.velocity(z_MW).expand_as(v_RMD), v_RMD, reduction="none").mean(-1)

    @override
    def predict(self, x_BnD: Tensor, time: Tensor, z_BnW: Tensor, guidance: float | None = None) -> Tensor:
        return self.guide(lambda _: self.velocity(z_BnW.to(self.velocity.weight.dtype)), x_BnD, guidance)

    @override
    def total_loss(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: see the class.

        Raises:
            MagiError: always.
        """
        raise MagiError("a velocity head denoises what the transformer reads: only diffusion-v trains it")

    @override
    def sample(self, *args: Any, **options: Any) -> NoReturn:
        """Refused: see the class.

        Raises:
            MagiError: always.
        """
        raise MagiError("a velocity head denoises what the transformer reads: only diffusion-v samples from it")
