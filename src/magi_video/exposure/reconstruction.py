"""One-step reconstructions: what the model makes of a frame in one evaluation of its head, for a share of the work that
a whole rollout would be. Their errors stand for those of a rollout (Resampling Forcing; error banks)."""

import torch
from torch import Tensor

from magi_video.errors import MagiError
from magi_video.models.epsilon import SAMPLERS, EpsilonHead, training_chain
from magi_video.models.flow import TIME_SCALE, FlowHead
from magi_video.models.head import DiffusionHead, TokenHead
from magi_video.models.random import Generators, draw


def draw_levels(batch: int, shift: float, generator: Generators, device: torch.device | str) -> Tensor:
    """Levels t `[B]` in (0, 1), shifted logit-normal (Resampling Forcing): t → shift · t/(1 + (shift − 1) t)."""
    t = draw(torch.randn, (batch,), generator, device).sigmoid()
    return shift * t / (1 + (shift - 1) * t)


def reconstruct(head: TokenHead, clean_BND: Tensor, z_BNW: Tensor, level_B: Tensor, eps_BND: Tensor) -> Tensor:
    """A frame noised to a level t and denoised by one evaluation of the head, `[B, N, D]` float32.

    The noise-to-signal ratio is t/(1 − t): x_t = (1 − t) x + t ε for the flow head, and for the epsilon head the
    training step of that ratio, below those of next to no signal, where x̂ would be the head's error many times over.

    Args:
        head: of the model.
        clean_BND: the frame's true tokens.
        z_BNW: the transformer's output for them.
        level_B: t, 0…1.
        eps_BND: standard normal noise.
    """
    t_BN1 = level_B[:, None, None].expand(-1, clean_BND.shape[1], 1)
    with torch.no_grad(), torch.autocast(z_BNW.device.type, enabled=False):  # the head is float32 throughout
        clean_BND = clean_BND.float()
        if isinstance(head, FlowHead):
            noisy_BND = torch.lerp(clean_BND, eps_BND, t_BN1)
            return noisy_BND - t_BN1 * _predict(head, noisy_BND, t_BN1 * TIME_SCALE, z_BNW)
        if isinstance(head, EpsilonHead):
            chain = training_chain(clean_BND.device)
            step_BN1 = torch.searchsorted(chain.sigma / chain.signal, t_BN1 / (1 - t_BN1))
            step_BN1 = step_BN1.clamp(max=SAMPLERS["dpmsolver++"].first_step)
            noisy_BND = chain.signal[step_BN1] * clean_BND + chain.sigma[step_BN1] * eps_BND
            return chain.predict_x0(noisy_BND, _predict(head, noisy_BND, step_BN1, z_BNW), step_BN1)
    raise MagiError(f"reconstructions need a head that denoises, not a {head.name} head")


def _predict(head: DiffusionHead, noisy_BND: Tensor, time_BN1: Tensor, z_BNW: Tensor) -> Tensor:
    """Noise or velocity `[B, N, D]`, without variances; each token has a time of its own."""
    rows_1MD, z_1MW = noisy_BND.flatten(0, 1)[None], z_BNW.float().flatten(0, 1)[None]
    output_1MX = head.predict(rows_1MD, time_BN1.flatten(), z_1MW)
    return output_1MX[0, :, : head.token_dim].view_as(noisy_BND)
