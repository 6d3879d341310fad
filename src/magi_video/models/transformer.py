"""MAGI's network: a stack of spatial-temporal blocks over the frames of a clip, and the diffusion head on top.

One forward serves every use. In training it reads whole sequences under the paradigm's temporal mask; in generation it
reads one frame over a `FrameCache`. It knows nothing of paradigms, samplers or codecs.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.models.architecture import NOISE_LEVEL, Architecture, check_interval
from magi_video.models.cache import FrameCache
from magi_video.models.conditions import ConditionTokens
from magi_video.models.configured import Network
from magi_video.models.embeddings import rotary_angles, sinusoidal_1d, sinusoidal_2d
from magi_video.models.head import HEADS, TokenHead
from magi_video.models.layers import Block
from magi_video.models.sequence import FrameSequence, flat_places, spatial_places


class FrameContext(NamedTuple):
    """What of the input does not depend on the tokens.

    Attributes:
        embedding_BSLW: the condition tokens, and every embedding that is added to the tokens.
        rotary: cosines and signed sines `[S, head_dim]` of the frames' positions; None without "rope".
    """

    embedding_BSLW: Tensor
    rotary: tuple[Tensor, Tensor] | None


class MagiVideoTransformer(Network):
    """The spatial-temporal transformer with its diffusion head (paper, section 4 and appendix A.1).

        MagiVideoTransformer(Architecture(width=768, depth=12, heads=12, mlp_width=3072))

    Args:
        architecture: its sizes, positions, conditions and head; its fields are the config.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.register_to_config(**asdict(architecture))
        self.architecture = architecture
        width = architecture.width
        self.num_tokens = architecture.num_tokens
        self.token_dim = architecture.token_dim
        self.head_dim = width // architecture.heads
        self.token_in = nn.Linear(self.token_dim, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.kind_position = nn.Parameter(torch.zeros(2, self.num_tokens, width))
        self.interval_embed = nn.Embedding(architecture.num_intervals, width)
        self.condition_tokens = ConditionTokens(architecture.conditions or {NOISE_LEVEL: {"size": 6}}, width)
        self.num_places = self.num_tokens + self.condition_tokens.count
        self.blocks = nn.ModuleList(
            Block(width, architecture.heads, architecture.mlp_width) for _ in range(architecture.depth)
        )
        self.norm_out = nn.LayerNorm(width, eps=1e-6)
        self.head_position = nn.Parameter(torch.zeros(self.num_tokens, width))
        self.diffusion_head: TokenHead = HEADS.find(architecture.head).of(architecture)
        self.canvas_out = nn.Linear(width, self.token_dim) if architecture.canvas else None
        self.gradient_checkpointing = False
        self.spatial_position: Tensor
        self.register_buffer("spatial_position", sinusoidal_2d(*architecture.grid, width), persistent=False)
        self.reset_parameters()

    @classmethod
    @override
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(Architecture.of(config))

    def reset_parameters(self) -> None:
        """Xavier for linear layers, N(0, 0.02) for embeddings (MAR); conditions and the head set their own."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        for embedding in (self.mask_token, self.kind_position, self.head_position):
            nn.init.normal_(embedding, std=0.02)
        self.diffusion_head.reset_parameters()
        self.condition_tokens.reset_parameters()

    def enable_gradient_checkpointing(self) -> None:
        """Drop the activations of the blocks in training, and compute them again in the backward."""
        self.gradient_checkpointing = True

    def check_interval(self, interval: int) -> None:
        """`MagiError` unless the model was trained for an interval."""
        check_interval(interval, self.config.max_interval)

    def patchify(self, latents_BTCHW: Tensor) -> Tensor:
        """Latent frames → tokens `[B, T, N, D]`, raster order, channels first within a token."""
        p = self.config.patch_size
        batch, frames, channels, height, width = latents_BTCHW.shape
        x = latents_BTCHW.reshape(batch, frames, channels, height // p, p, width // p, p)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, frames, self.num_tokens, self.token_dim)

    def unpatchify(self, tokens_BTND: Tensor) -> Tensor:
        """Inverse of `patchify`: `[B, T, C, H, W]`."""
        p, channels = self.config.patch_size, self.config.latent_channels
        rows, columns = self.architecture.grid
        batch, frames = tokens_BTND.shape[:2]
        x = tokens_BTND.reshape(batch, frames, rows, columns, channels, p, p)
        return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, channels, rows * p, columns * p)

    def frame_positions(self, total_frames: int) -> Tensor:
        """Temporal positions `[total_frames]` of a rollout.

        0…F−1 for rollouts no longer than the trained T frames (and for "rope"); beyond that, F positions interpolated
        linearly into 0…T−1 (appendix A.4). A cached key carries its position, so F is fixed before the first frame.
        """
        trained = self.config.num_frames
        if total_frames <= trained or self.config.temporal_position == "rope":
            return torch.arange(total_frames, dtype=torch.float64)
        return torch.linspace(0, trained - 1, total_frames, dtype=torch.float64)

    def make_cache(self, batch: int, capacity: int | None, made: int = 1) -> FrameCache:
        """A frame cache for this model, in its precision.

        Args:
            batch: samples.
            capacity: frames of the rollout; None for a sliding window of the trained T frames ("rope" alone).
            made: frames that are made together, each of which sees its own window.
        """
        trained = self.config.num_frames
        relative = self.config.temporal_position == "rope"
        if capacity is None and not relative:
            raise MagiError("an unbounded rollout needs a model with temporal_position='rope'; give a number of frames")
        slides = relative and (capacity is None or capacity > trained)
        return FrameCache(
            layers=self.config.depth,
            batch=batch,
            places=self.num_places,
            heads=self.config.heads,
            head_dim=self.head_dim,
            capacity=trained + made if slides or capacity is None else capacity,
            window=trained if slides else None,
            dtype=self.mask_token.dtype,
            device=self.mask_token.device,
        )

    def context(self, sequence: FrameSequence) -> FrameContext:
        """Condition tokens and position, kind and interval embeddings of the frames (section 4)."""
        batch, frames = sequence.tokens_BSND.shape[:2]
        conditions = self.condition_tokens(sequence.conditions, batch, frames, sequence.tokens_BSND.device)
        conditions = conditions.to(self.mask_token.dtype)
        added = self.spatial_position.to(conditions.dtype) + self.kind_position[sequence.kind_S].to(conditions.dtype)
        frame = self.interval_embed(sequence.interval_B - 1)[:, None, None]
        rotary = None
        if self.config.temporal_position == "interpolate":
            frame = frame + sinusoidal_1d(sequence.position_S, self.config.width)[:, None].to(frame.dtype)
        else:
            cos, signed_sin = rotary_angles(sequence.position_S, self.head_dim)
            rotary = cos.to(frame.dtype), signed_sin.to(frame.dtype)
        embedding = torch.cat([conditions, added.expand(batch, -1, -1, -1)], dim=2) + frame.to(conditions.dtype)
        return FrameContext(embedding, rotary)

    def embed(self, sequence: FrameSequence, embedding_BSLW: Tensor) -> Tensor:
        """Input activations `[B, S, L, width]`: condition tokens, then the frame's tokens.

        In the precision of the weights, under autocast too: what the blocks add to is float32 then (as in MAR).
        """
        stream = self.mask_token.dtype
        tokens = self.token_in(sequence.tokens_BSND.to(self.token_in.weight.dtype)).to(stream)
        unseen: Tensor = self.mask_token
        if (canvas := sequence.canvas_BCND) is not None:
            painted = self.token_in(canvas.to(self.token_in.weight.dtype)).to(stream)
            unseen = unseen + F.pad(painted, (0, 0, 0, 0, tokens.shape[1] - canvas.shape[1], 0))
        tokens = torch.where(sequence.masked_BSN[..., None], unseen, tokens)
        conditions, added = embedding_BSLW.to(stream).split([self.condition_tokens.count, self.num_tokens], 2)
        return torch.cat([conditions, tokens + added], dim=2)

    def forward(self, sequence: FrameSequence, cache: FrameCache | None = None) -> Tensor:
        """The head's conditions z of the frames that `sequence` asks for: `[B, predicted, N, width]`.

        Args:
            sequence: frames to read; without a cache a temporal or a flat mask is needed.
            cache: the past of a rollout; the frames' keys and values are written into the slots that follow it.
        """
        embedding_BSLW, rotary = self.context(sequence)
        x_BSLW = self.embed(sequence, embedding_BSLW)
        mask_SS = sequence.mask_SS if cache is None else cache.begin(x_BSLW.shape[1])
        layers = [None] * len(self.blocks) if cache is None else cache.layers
        spatial_SLL, flat_PP, conditions = None, None, self.condition_tokens.count
        if sequence.spatial_SNN is not None:
            spatial_SLL = spatial_places(sequence.spatial_SNN, conditions)
        if sequence.flat_SNSN is not None:
            flat_PP = flat_places(sequence.flat_SNSN, conditions)
        for number, (block, layer) in enumerate(zip(self.blocks, layers, strict=True), 1):
            if number == len(self.blocks) and mask_SS is not None and sequence.predicted is not None:
                mask_SS = mask_SS[-sequence.predicted :]  # the last block computes no frame that is not asked for
            dropout = None if sequence.dropout is None else sequence.dropout.at(number - 1)
            x_BSLW = self._run(block, x_BSLW, mask_SS, spatial_SLL, rotary, layer, dropout, flat_PP)
        return self.norm_out(x_BSLW[:, :, self.condition_tokens.count :]) + self.head_position.to(x_BSLW.dtype)

    def _run(self, block: nn.Module, *arguments: Any) -> Tensor:
        """A block; with gradient checkpointing its activations are dropped, and computed again in the backward."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)


MagiTransformer = MagiVideoTransformer
"""Its former name."""
