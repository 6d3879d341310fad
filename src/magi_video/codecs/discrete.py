"""Discrete codecs: the latent of each place is the vector of one of finitely many codes.

To everything else such a latent is like any other; the categorical head alone asks which code it is.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from magi_video.codecs.base import Codec
from magi_video.errors import MagiError
from magi_video.models.categorical import CategoricalHead
from magi_video.models.head import TokenHead

ROWS_AT_ONCE = 1 << 24
"""Distances that are computed together."""


class DiscreteCodec(Codec):
    """A codec of `codes` codes. A subclass writes `raw_codebook`, and gives exact codes from `encode_raw`."""

    codes: int

    def raw_codebook(self) -> Tensor:
        """The codes' vectors `[V, C]`, before normalisation."""
        raise NotImplementedError

    @torch.no_grad()
    def codebook(self) -> Tensor:
        """The codes' vectors `[V, C]` as normalised latents, float32."""
        return (self.raw_codebook().float() - self._latents_mean[:, 0, 0]) / self._latents_std[:, 0, 0]

    def find_codes(self, latents_BTCHW: Tensor) -> Tensor:
        """The code of each place, `[B, T, H, W]` int64, nearest to normalised latents."""
        return nearest_places(self.codebook(), latents_BTCHW)

    def look_up(self, codes_BTHW: Tensor) -> Tensor:
        """Normalised latents `[B, T, C, H, W]` of codes; a `MagiError` if there are no such codes."""
        if codes_BTHW.ndim != 4 or codes_BTHW.is_floating_point():
            raise MagiError(f"codes are integers [batch, frames, height, width]; got {list(codes_BTHW.shape)}")
        if codes_BTHW.numel() and not 0 <= int(codes_BTHW.min()) <= int(codes_BTHW.max()) < self.codes:
            least, most = int(codes_BTHW.min()), int(codes_BTHW.max())
            raise MagiError(f"codes must lie in 0…{self.codes - 1}; got {least}…{most}")
        return self.codebook()[codes_BTHW].movedim(-1, 2)

    def encode_codes(self, video_BTCHW: Tensor) -> Tensor:
        """The codes of a video, `[B, T, H, W]`; pixels as `encode` takes them."""
        return self.find_codes(self.encode(video_BTCHW))

    def decode_codes(self, codes_BTHW: Tensor) -> Tensor:
        """The pixels of codes, as `decode` gives them."""
        return self.decode(self.look_up(codes_BTHW))

    def set_code_use(self, share: float, perplexity: float) -> None:
        """Record how a data set uses the codes (`measure_code_use`); it is saved with the codec's config."""
        self.register_to_config(codes_used=share, perplexity=perplexity)


def check_codes(head: TokenHead, codec: Codec) -> None:
    """Refuse a categorical head with a codec of other codes than it predicts.

    Raises:
        MagiError: the codec has no codes, or others.
    """
    if not isinstance(head, CategoricalHead):
        return
    if not isinstance(codec, DiscreteCodec):
        raise MagiError(f"a categorical head predicts codes, and {type(codec).__name__} has none")
    theirs_VC, own_VC = codec.codebook().cpu(), head.codebook.detach().float().cpu()
    if theirs_VC.shape != own_VC.shape or not torch.allclose(theirs_VC, own_VC, rtol=1e-2, atol=1e-2):  # of bfloat16
        raise MagiError("the model's head was trained for other codes than those of this codec")


def nearest(codebook_VC: Tensor, vectors_NC: Tensor) -> Tensor:
    """Index `[N]` of the code nearest to each vector, in float32; of equally near ones the first."""
    codebook_VC = codebook_VC.float()
    squares_V = codebook_VC.square().sum(1)
    parts = vectors_NC.float().split(max(1, ROWS_AT_ONCE // len(codebook_VC)))
    return torch.cat([torch.addmm(squares_V, part, codebook_VC.t(), alpha=-2).argmin(1) for part in parts])


def nearest_places(codebook_VC: Tensor, latents: Tensor) -> Tensor:
    """Index `[…, H, W]` of the code nearest to each place of latents `[…, C, H, W]`."""
    vectors = latents.movedim(-3, -1)
    return nearest(codebook_VC, vectors.flatten(0, -2)).view(vectors.shape[:-1])


def use_of(counts_V: Tensor) -> tuple[float, float]:
    """Of how often each code is used: share of codes used at all, and perplexity exp(−Σ p log p), 1…V."""
    p_V = counts_V.double() / counts_V.sum().clamp(min=1)
    return float((counts_V > 0).double().mean()), float(torch.special.entr(p_V).sum().exp())


@torch.no_grad()
def measure_code_use(codec: DiscreteCodec, batches: Iterable[Tensor]) -> tuple[float, float]:
    """Share of the codes that videos `[B, T, 3, H, W]` in [−1, 1] use, and the perplexity of their use (`use_of`)."""
    counts_V = torch.zeros(codec.codes, dtype=torch.long)
    for video_BTCHW in batches:
        codes = codec.encode_codes(video_BTCHW.to(codec.device))
        counts_V += torch.bincount(codes.flatten().cpu(), minlength=codec.codes)
    if not counts_V.any():
        raise MagiError("no frames to measure the use of codes on")
    return use_of(counts_V)
