"""The categorical head, for discrete tokens: a linear layer from z to the vocabulary, trained by cross-entropy.

A discrete token is the vector that its code stands for, so the transformer, the cache and the codec read it as any
other token; only the head knows that there are finitely many. It holds them in a frozen table.

So did VideoGPT, MAGVIT and Genie: softmax over a VQ codec's codes, sampled at a temperature, from the k most likely
codes (top-k), or from the fewest that together have the probability p (top-p, Holtzman et al. 2020).
"""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import Architecture, check_first_step
from magi_video.models.head import Noise, TokenHead, register
from magi_video.models.random import Generators


@register
class CategoricalHead(TokenHead):
    """z → one of V codes.

    Args:
        token_dim: numbers D of a code's vector.
        condition_dim: width of z.
        codes: V.

    Attributes:
        codebook: the codes' vectors `[V, D]`, as tokens: in the codec's normalised latent space. Saved with the model
            and never trained; zero until `set_codebook`.
        label_smoothing: share of a target's probability that training spreads evenly over all codes, in [0, 1).
    """

    name = "categorical"
    outputs = None
    samplers = ("categorical",)
    options = ("temperature", "top_k", "top_p")

    def __init__(self, token_dim: int, condition_dim: int, codes: int) -> None:
        super().__init__(token_dim)
        self.logits = nn.Linear(condition_dim, codes)
        self.codebook = nn.Parameter(torch.zeros(codes, token_dim), requires_grad=False)
        self.label_smoothing = 0.0

    @classmethod
    @override
    def of(cls, architecture: Architecture) -> Self:
        assert architecture.codes is not None
        return cls(architecture.token_dim, architecture.width, architecture.codes)

    @override
    def reset_parameters(self) -> None:
        """Zero: every code is equally likely at first (VideoGPT)."""
        nn.init.zeros_(self.logits.weight)
        nn.init.zeros_(self.logits.bias)

    def set_codebook(self, codebook_VD: Tensor) -> None:
        """Take a codec's codes, as tokens.

        Raises:
            MagiError: they are not as many, or not as long, as the model has them.
        """
        if codebook_VD.shape != self.codebook.shape:
            raise MagiError(
                f"a codebook of {list(codebook_VD.shape)}; expected [codes, numbers] {list(self.codebook.shape)}"
            )
        with torch.no_grad():
            self.codebook.copy_(codebook_VD)

    @override
    def find_first_step(self, sampler: str, num_steps: int, first_step: int | None) -> None:
        """There are no steps."""
        if first_step is not None:
            check_first_step("categorical", first_step)

    @override
    def find_denoise_steps(self, asked: int | None, usual: int) -> int:
        """A token is drawn at once."""
        if asked not in (None, 1):
            raise MagiError(f"a categorical head draws a token at once, in 1 denoise step; got {asked}")
        return 1

    def find_codes(self, tokens_MD: Tensor) -> Tensor:
        """Codes `[M]` of tokens: the nearest, since a latent cache rounds its numbers to float16."""
        codebook = self.codebook.to(tokens_MD.dtype)
        return (codebook.square().sum(1) - 2 * tokens_MD @ codebook.t()).argmin(1)

    def loss(self, target_MD: Tensor, z_MW: Tensor) -> Tensor:
        """Cross-entropy of every token `[M]`, in nats, float32.

        Args:
            target_MD: clean tokens.
            z_MW: the transformer's outputs for them.
        """
        codes_M = self.find_codes(target_MD)
        return F.cross_entropy(self.logits(z_MW), codes_M, reduction="none", label_smoothing=self.label_smoothing)

    @override
    def total_loss(
        self, target_BKD: Tensor, z_BKW: Tensor, counted_BK: Tensor, repeats: int, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        """Nothing is drawn."""
        return self.counted_loss(target_BKD.flatten(0, 1), z_BKW.flatten(0, 1), counted_BK.flatten())

    def counted_loss(self, target_LD: Tensor, z_LW: Tensor, counted_L: Tensor) -> tuple[Tensor, Tensor]:
        """`loss` over the tokens that are counted (boolean), summed, and their number."""
        counted_M = counted_L.nonzero()[:, 0]
        losses_M = self.loss(target_LD[counted_M].float(), z_LW[counted_M].float())
        return losses_M.sum(), losses_M.new_tensor(float(len(counted_M)))

    def predict(self, z_BnW: Tensor, guidance: float | None = None) -> Tensor:
        """Logits `[B, n, V]`, float32; under guidance uncond + guidance · (cond − uncond)."""
        logits = self.logits(z_BnW.to(self.logits.weight.dtype)).float()
        if guidance is None:
            return logits
        cond, uncond = logits.chunk(2)
        return torch.lerp(uncond, cond, guidance)

    @override
    def sample(
        self,
        z_BnW: Tensor,
        noise: Noise,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        guidance: float | None = None,
    ) -> Tensor:
        """Draw tokens: see `sample_codes`.

        Returns:
            Tokens `[B, n, D]`, float32.
        """
        codes_Bn, _ = self.sample_codes(
            z_BnW, noise, temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance
        )
        return self.look_up(codes_Bn)

    def sample_codes(
        self,
        z_BnW: Tensor,
        noise: Noise,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        guidance: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw codes, each token's by itself.

        Args:
            z_BnW: the transformer's outputs for n tokens of each of B samples; with guidance `[2B, n, W]`.
            noise: one generator a sample.
            temperature: divides the logits; 0 takes the most likely code.
            top_k: draw from the so many most likely codes alone; None for all.
            top_p: draw from the fewest codes, most likely first, that together have at least this probability; 1 for
                all.
            guidance: classifier-free guidance's scale, on the logits; None for none.

        Returns:
            Codes `[B, n]`, and the model's own confidence in each: its log-probability under the (guided) logits, at
            temperature 1 and of all codes (MaskGIT).
        """
        logits_BnV = self.predict(z_BnW, guidance)
        if temperature == 0:
            codes_Bn = logits_BnV.argmax(-1)
        else:
            kept_BnV = keep_likely(logits_BnV / temperature, top_k, top_p)
            codes_Bn = draw_index(kept_BnV.softmax(-1), noise.uniform(z_BnW.shape[1]))
        return codes_Bn, logits_BnV.log_softmax(-1).gather(-1, codes_Bn[..., None])[..., 0]

    def look_up(self, codes_Bn: Tensor) -> Tensor:
        """Tokens `[B, n, D]` of codes, float32."""
        return F.embedding(codes_Bn, self.codebook).float()


def keep_likely(logits_V: Tensor, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """Logits `[…, V]` with −∞ for every code outside of the top-k and top-p sets (top-k first).

    Ties at the border of the top-k set are all kept; of the top-p set at least the most likely code.
    """
    if top_k is not None and top_k < logits_V.shape[-1]:
        least = logits_V.topk(top_k, dim=-1).values[..., -1:]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    if top_p < 1:
        sorted_V, order_V = logits_V.sort(dim=-1, descending=True)
        probability_V = sorted_V.softmax(-1)
        before_V = probability_V.cumsum(-1) - probability_V  # of all that are more likely
        beyond_V = before_V >= top_p
        beyond_V[..., 0] = False
        logits_V = logits_V.masked_fill(beyond_V.scatter(-1, order_V, beyond_V), -torch.inf)
    return logits_V


def draw_index(probability_V: Tensor, uniform: Tensor) -> Tensor:
    """Indices drawn from probabilities `[…, V]` by numbers `[…]` in [0, 1): the distribution function's inverse."""
    total_V = probability_V.cumsum(-1)
    index = torch.searchsorted(total_V, (uniform * total_V[..., -1])[..., None], right=True)[..., 0]
    return index.clamp(max=probability_V.shape[-1] - 1)
