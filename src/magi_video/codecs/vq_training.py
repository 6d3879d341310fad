"""What trains the VQ codec: its losses, and what keeps its codes alive.

The decoder sees codes, and its gradient passes straight through them to the encoder. Codes are not trained by gradient:
each is a moving average of the vectors that fall to it (VideoGPT's codebook), and codes that nothing falls to begin
again. VideoGPT restarts a code in every step in which its averaged use is below 1 vector, which presupposes batches of
many thousand vectors; here a code has a number of steps to be used in.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from magi_video.codecs import fsq
from magi_video.codecs.base import CODECS, Codec
from magi_video.codecs.config import VQConfig
from magi_video.codecs.discrete import measure_code_use, nearest, use_of
from magi_video.codecs.statistics import measure_statistics
from magi_video.codecs.training import CodecTraining, reconstruction_errors


class CodeAverages(nn.Module):
    """The codes of a training: moving averages, and how much they are used. All state is in buffers.

    Args:
        codes: V.
        dim: numbers C of a code; 0 where codes are fixed, and their use alone is counted.
        decay: of the averages, a step.
        restart_every: steps of a window; at its end the codes that it did not use begin again. 0: never, and windows of
            100 steps.
        l2_normalize: keep the codes at unit length.

    Attributes:
        vectors: the codes `[V, C]`: `sums` over `counts`.
        counts, sums: moving averages of how many vectors fall to each code in a step, and of their sum.
        window: uses of each code since the window began.
        use: share of the codes that the last whole window used, and the perplexity of their use; 0 before.
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    window: Tensor
    use: Tensor

    def __init__(self, codes: int, dim: int, decay: float, restart_every: int, l2_normalize: bool = False) -> None:
        super().__init__()
        self.decay, self.restart_every, self.l2_normalize = decay, restart_every, l2_normalize
        if dim:
            self.register_buffer("vectors", torch.zeros(codes, dim))
            self.register_buffer("counts", torch.zeros(codes))
            self.register_buffer("sums", torch.zeros(codes, dim))
        self.register_buffer("window", torch.zeros(codes, dtype=torch.long))
        self.register_buffer("use", torch.zeros(2))

    @torch.no_grad()
    def begin(self, vectors_NC: Tensor, generator: torch.Generator) -> None:
        """Begin with vectors of the first batch as codes."""
        self._restart(torch.arange(len(self.counts), device=self.counts.device), vectors_NC, generator)

    @torch.no_grad()
    def update(self, vectors_NC: Tensor, codes_N: Tensor, step: int, generator: torch.Generator) -> None:
        """Take in a step's vectors, which fell to these codes (van den Oord et al. 2017, appendix A.1).

        Args:
            vectors_NC: of the encoder.
            codes_N: of each vector.
            step: number of the step, from 0.
            generator: on the CPU, of the codes that begin again.
        """
        uses_V = torch.bincount(codes_N, minlength=len(self.window))
        self.window += uses_V
        learns = hasattr(self, "vectors")
        if learns:
            self.counts.lerp_(uses_V.to(self.counts.dtype), 1 - self.decay)
            self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes_N, vectors_NC), 1 - self.decay)
            self.vectors.copy_(self._at_unit_length(self.sums / self.counts.clamp(min=1e-6)[:, None]))
        if (step + 1) % (self.restart_every or 100) == 0:
            self.use.copy_(torch.tensor(use_of(self.window)))
            unused = (self.window == 0).nonzero()[:, 0]
            if learns and self.restart_every and len(unused):
                self._restart(unused, vectors_NC, generator)
            self.window.zero_()

    def _restart(self, which: Tensor, vectors_NC: Tensor, generator: torch.Generator) -> None:
        """Put random vectors, each with a little noise, in the place of some codes; they count as used averagely."""
        picked = torch.randint(len(vectors_NC), (len(which),), generator=generator).to(which.device)
        noise = torch.randn(len(which), vectors_NC.shape[1], generator=generator).to(which.device)
        spread_C = vectors_NC.std(0, correction=0)
        self.vectors[which] = self._at_unit_length(vectors_NC[picked] + 0.01 * spread_C * noise)
        self.counts[which] = len(vectors_NC) / len(self.counts)
        self.sums[which] = self.vectors[which] * self.counts[which, None]

    def _at_unit_length(self, vectors_VC: Tensor) -> Tensor:
        return F.normalize(vectors_VC, dim=-1) if self.l2_normalize else vectors_VC


class VQTraining(CodecTraining[VQConfig]):
    """Trains a VQ codec; arguments as of `CodecTraining`."""

    name = "VQ codec"

    def __init__(self, config: VQConfig, device: str | torch.device = "cpu") -> None:
        super().__init__(config, device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            registered: Any = CODECS["vq"]  # whose module imports this one
            self.codec = registered.of(config)
        self.codec.to(device)
        self.network = self.codec.vae
        learnt = config.code_dim if config.quantizer == "ema" else 0
        self.averages = CodeAverages(
            config.codes, learnt, config.ema_decay, config.restart_every, config.l2_normalize
        ).to(device)
        self._step: tuple[Tensor, Tensor] | None = None  # the vectors of a step, and their codes

    @override
    def tensors(self) -> dict[str, Tensor]:
        """Weights, and the codes' averages and counters."""
        averages = {f"codes.{name}": value for name, value in self.averages.named_buffers()}
        return super().tensors() | averages

    @override
    def losses(self, pictures_BCHW: Tensor, step: int) -> dict[str, Tensor]:
        """The parts of the loss at a step; "loss" is their weighted sum."""
        with self.autocast():
            vectors_BCHW = self.codec.vectors_of(pictures_BCHW.contiguous(memory_format=torch.channels_last))
            quantized_BCHW, distance = self._quantize(vectors_BCHW, step)
            decoded_BCHW = self.codec.vae.decode(quantized_BCHW).float()
        mse, edges = reconstruction_errors(decoded_BCHW, pictures_BCHW)
        loss = mse + self.config.edge_weight * edges + self.config.commitment * distance
        return {"loss": loss, "mse": mse, "edges": edges, "commitment": distance}

    def _quantize(self, vectors_BCHW: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Vectors replaced by their codes, whose gradient is the vectors'; and the mean squared distance to them."""
        with torch.autocast(vectors_BCHW.device.type, enabled=False):
            rows_BHWC = vectors_BCHW.movedim(1, -1)
            if self.config.quantizer == "fsq":
                quantized_BHWC = fsq.quantize(rows_BHWC, self.config.fsq_levels)
                codes_N = nearest(self.codec.raw_codebook(), quantized_BHWC.detach().flatten(0, -2))
                self._step = rows_BHWC.detach().flatten(0, -2), codes_N
                return quantized_BHWC.movedim(-1, 1), vectors_BCHW.new_zeros(())
            vectors_NC = rows_BHWC.detach().flatten(0, -2)
            if step == 0:
                self.averages.begin(vectors_NC, self.generator(step))
            codes_N = nearest(self.averages.vectors, vectors_NC)
            self._step = vectors_NC, codes_N
            code_BHWC = self.averages.vectors[codes_N].view(rows_BHWC.shape)
            distance = (rows_BHWC - code_BHWC).square().mean()
            return straight_through(rows_BHWC, code_BHWC).movedim(-1, 1), distance

    @override
    def after_step(self, step: int) -> dict[str, float]:
        """Let the codes follow; returns their use: share and perplexity over the last whole window."""
        assert self._step is not None
        self.averages.update(*self._step, step, self.generator(step + 1))
        share, perplexity = self.averages.use.tolist()
        return {"codes_used": share, "perplexity": perplexity}

    @override
    def finish(self, measured: Sequence[Tensor]) -> tuple[Codec, dict[str, Any]]:
        """The use of the codes is measured too."""
        codec = self.codec.eval()
        if self.config.quantizer == "ema":
            codec.vectors.copy_(self.averages.vectors)
        codec.set_statistics(*measure_statistics(codec, measured))
        share, perplexity = measure_code_use(codec, measured)
        codec.set_code_use(share, perplexity)
        return codec, {"codes_used": share, "perplexity": perplexity}


def straight_through(vectors: Tensor, codes: Tensor) -> Tensor:
    """The codes, with the gradient of the vectors that they stand for."""
    return vectors + (codes - vectors).detach()
