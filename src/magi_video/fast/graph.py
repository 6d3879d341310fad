"""A mask step and the decoder as pure functions of tensors, which can become one graph each.

`mask_step` reads the finished frame (where there is one), reads the frame in the making and runs all denoise steps of
the head. It is the model's own code over a cache that is given and draws that are given (`GivenNoise`): nothing is
written down twice. Whatever changes from frame to frame is a tensor among its inputs: tokens and masks, kinds,
positions, conditions, places in the order of unmasking, noise, temperature, the scale of guidance. What remains is
fixed when the graph is made (`StepForm`): the sampler with its times, and which of the inputs there are.

ONNX Runtime takes it as a function without side effects, `MaskStepFunction`: the cache with the slots that may be seen
is among its inputs, and what is to be written there among its outputs (`fast/onnx_engine.py`). A CUDA graph reads and
writes memory that stays where it is (`fast/cuda_graph.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from magi_video.codecs.base import Codec
from magi_video.fast.cache import PlaceCache, sample_index
from magi_video.fast.past import read_over
from magi_video.models.conditions import unknown
from magi_video.models.head import DiffusionHead
from magi_video.models.sequence import FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.sampling.past import pick


class GivenLayer(PlaceCache):
    """One block's past as tensors that are read: what a pass would write into the cache is kept apart, in `new`.

    Args:
        keys_BLHFd, values_BLHFd: of F slots.
        remembers: whether spatial keys and values are kept as well.
        spatial: those of the pass before, `[B, L, H, d]`; None before the first.
    """

    def __init__(
        self,
        keys_BLHFd: Tensor,
        values_BLHFd: Tensor,
        remembers: bool = False,
        spatial: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.keys, self.values = keys_BLHFd, values_BLHFd
        self.remembers, self.spatial = remembers, spatial
        self.new: tuple[Tensor, Tensor] | None = None

    def write(self, k_BLHSd: Tensor, v_BLHSd: Tensor, at_Bn: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `PlaceCache.write`: the past with the frames behind it, `[B, L, H, F + S, d]`."""
        self.new = k_BLHSd, v_BLHSd
        keys, values = self.keys, self.values
        if at_Bn is not None:
            keys, values = pick(keys, at_Bn), pick(values, at_Bn)
        return torch.cat([keys, k_BLHSd], dim=3), torch.cat([values, v_BLHSd], dim=3)

    def remember(self, k_BLHd: Tensor, v_BLHd: Tensor, at_Bn: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `PlaceCache.remember`."""
        if at_Bn is None:
            self.spatial = k_BLHd, v_BLHd
        else:
            assert self.spatial is not None, "the first pass over a frame reads all of it"
            at = sample_index(at_Bn), at_Bn
            keys, values = self.spatial
            self.spatial = keys.index_put(at, k_BLHd), values.index_put(at, v_BLHd)
        return self.spatial


class GivenCache:
    """All blocks' past, in place of a `FrameCache`.

    Args:
        layers: of the blocks.
        visible_SF: boolean, which slots each frame of the pass may see.
    """

    def __init__(self, layers: list[GivenLayer], visible_SF: Tensor) -> None:
        self.layers = layers
        self.visible_SF = visible_SF

    def begin(self, frames: int) -> Tensor:
        """See `FrameCache.begin`: the slots, and behind them the frames of the pass up to itself."""
        own_SS = torch.ones(frames, frames, dtype=torch.bool, device=self.visible_SF.device).tril()
        return torch.cat([self.visible_SF, own_SS], dim=1)


class GivenNoise:
    """Draws that were made before, in order."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        self._draws = iter(draws)

    def normal(self, *shape: int) -> Tensor:
        """The next draw."""
        return next(self._draws)

    def uniform(self, *shape: int) -> Tensor:
        """The next draw."""
        return next(self._draws)


class CountedNoise:
    """Zeros, for one sample; remembers the shapes that were asked for."""

    def __init__(self, device: torch.device) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.device = device

    def normal(self, *shape: int) -> Tensor:
        """Zeros `[1, *shape]`."""
        self.shapes.append(shape)
        return torch.zeros(1, *shape, device=self.device)

    uniform = normal


@dataclass(frozen=True)
class StepForm:
    """What a graph of a mask step is made for; everything else is among its inputs.

    Attributes:
        options: fixed ones of the head's `sample`, by name.
        batch: samples B.
        count: tokens n that are predicted in a sample. Fewer are padded: a place twice gives the same numbers twice.
        slots: of the cache, F.
        finished: a finished frame is read before the one in the making (S = 2), and its keys and values come out.
        reuses: only the tokens that have changed are read, as many again as are predicted having appeared before;
            spatial keys and values of the others are given.
        remembers: spatial keys and values come out, for a step that reuses them.
        guided: rows are two halves.
    """

    options: tuple[tuple[str, int | str | None], ...]
    batch: int
    count: int
    slots: int
    finished: bool
    reuses: bool = False
    remembers: bool = False
    guided: bool = False

    @property
    def rows(self) -> int:
        """R of all tensors but those of the head."""
        return self.batch * (1 + self.guided)


@dataclass
class StepInputs:
    """Inputs of a mask step but for the cache, of B samples: R = B rows, or 2B under guidance.

    Attributes:
        frames: the finished frame, if the form has one, and the frame in the making.
        places_Rn: tokens that are predicted.
        draws: what the head's `sample` draws, each `[B, …]`.
        temperature: of the noise, a number, float32.
        guidance: its scale, a number, float32; None without.
        appeared_Rn: tokens that have appeared since the frame was last read, for a form that reuses.
    """

    frames: FrameSequence
    places_Rn: Tensor
    draws: list[Tensor]
    temperature: Tensor
    guidance: Tensor | None = None
    appeared_Rn: Tensor | None = None

    def of_frames(self) -> list[Tensor]:
        """Tokens, masks, kinds, positions and intervals."""
        one = self.frames
        return [one.tokens_BSND, one.masked_BSN, one.kind_S, one.position_S, one.interval_B]

    def conditions(self) -> list[Tensor]:
        """In alphabetical order."""
        return [self.frames.conditions[name] for name in sorted(self.frames.conditions)]

    def optional(self) -> list[Tensor]:
        """The scale of guidance and the tokens that have appeared, where the form has them."""
        return [part for part in (self.guidance, self.appeared_Rn) if part is not None]

    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [
            *self.of_frames(), *self.conditions(), self.places_Rn, *self.draws, self.temperature, *self.optional()
        ]  # fmt: skip


def frames_of(tensors: list[Tensor], names: list[str], conditions: list[Tensor]) -> FrameSequence:
    """Frames from what `StepInputs.of_frames` and `StepInputs.conditions` give."""
    tokens, masked, kind, position, interval = tensors
    return FrameSequence(tokens, masked, kind, position, interval, dict(zip(names, conditions, strict=True)))


@dataclass
class GivenPast:
    """The cache as inputs of `MaskStepFunction`, R rows.

    Attributes:
        keys, values: of every block, `[R, L, H, F, d]`.
        visible_SF: boolean, the slots that each of the frames may see.
        spatial: keys and values of every block, each `[R, L, H, d]`, for a form that reuses; else none.
    """

    keys: list[Tensor]
    values: list[Tensor]
    visible_SF: Tensor
    spatial: list[Tensor]


def as_tree(inputs: StepInputs, past: GivenPast) -> tuple[Any, ...]:
    """Arguments of `MaskStepFunction.forward`."""
    return (
        inputs.of_frames(), inputs.conditions(), past.keys, past.values, past.visible_SF, inputs.places_Rn,
        inputs.draws, inputs.temperature, inputs.optional(), past.spatial,
    )  # fmt: skip


def flat(tree: tuple[Any, ...]) -> list[Tensor]:
    """All tensors, in the order of a graph's inputs."""
    return [leaf for part in tree for leaf in (part if isinstance(part, list) else [part])]


def mask_step(model: MagiVideoTransformer, cache: Any, form: StepForm, inputs: StepInputs) -> Tensor:
    """A mask step over a cache: tokens `[B, n, D]`, float32, out of noise.

    Args:
        model: in evaluation mode, sped up (`fast.speed`), with a `DiffusionHead`.
        cache: a `PlacesCache` or what stands for one; the frames' keys and values are written to it.
        form: what is fixed; `inputs` may have fewer tokens.
        inputs: all else.
    """
    head, frames, places_Rn = model.diffusion_head, inputs.frames, inputs.places_Rn
    assert isinstance(head, DiffusionHead)
    changed_Rm = None if inputs.appeared_Rn is None else torch.cat([inputs.appeared_Rn, places_Rn], dim=1)
    z_RnW = read_over(model, cache, frames, model.context(frames), slice(-1, None), places_Rn, changed_Rm)[:, 0]
    options: dict[str, Any] = dict(form.options) | {"temperature": inputs.temperature, "guidance": inputs.guidance}
    return head.sample(z_RnW, GivenNoise(inputs.draws), **options)


class MaskStepFunction(nn.Module):
    """A mask step of a model: tokens out of noise. Pure: nothing of its inputs is changed.

    Args:
        model: in evaluation mode, sped up (`fast.speed`), with a `DiffusionHead`.
        form: what is fixed.
    """

    def __init__(self, model: MagiVideoTransformer, form: StepForm) -> None:
        super().__init__()
        self.model = model
        self.form = form
        self.names = sorted(model.condition_tokens.specs)

    def forward(
        self,
        frames: list[Tensor],
        conditions: list[Tensor],
        keys: list[Tensor],
        values: list[Tensor],
        visible_SF: Tensor,
        places_Rn: Tensor,
        draws: list[Tensor],
        temperature: Tensor,
        optional: list[Tensor],
        spatial: list[Tensor],
    ) -> list[Tensor]:
        """Arguments as of `as_tree`.

        Returns:
            The tokens `[B, n, D]`, float32; with a finished frame its keys of every block `[R, L, H, d]`, then its
            values; if the form remembers, spatial keys and values of every block in turn, `[R, L, H, d]`.
        """
        form = self.form
        given = iter(optional)
        inputs = StepInputs(
            frames_of(frames, self.names, conditions),
            places_Rn,
            draws,
            temperature,
            guidance=next(given) if form.guided else None,
            appeared_Rn=next(given) if form.reuses else None,
        )
        before: list[Any] = [None] * len(keys)
        if form.reuses:
            before = list(zip(spatial[::2], spatial[1::2], strict=True))
        remembers = form.remembers or form.reuses
        layers = [GivenLayer(k, v, remembers, one) for k, v, one in zip(keys, values, before, strict=True)]
        made = [mask_step(self.model, GivenCache(layers, visible_SF), form, inputs)]
        if form.finished:
            made += [layer.new[part][:, :, :, 0] for part in (0, 1) for layer in layers if layer.new is not None]
        if form.remembers:
            made += [part for layer in layers if layer.spatial is not None for part in layer.spatial]
        return made


def drawn_shapes(model: MagiVideoTransformer, form: StepForm) -> list[tuple[int, ...]]:
    """Shapes of what the head draws for the tokens of a sample, in order."""
    noise, head = CountedNoise(model.device), model.diffusion_head
    z_RnW = torch.zeros(1 + form.guided, form.count, model.config.width, dtype=model.dtype, device=model.device)
    options: dict[str, Any] = dict(form.options) | {"temperature": 1.0, "guidance": 1.0 if form.guided else None}
    head.sample(z_RnW, noise, **options)
    return noise.shapes


def example_inputs(model: MagiVideoTransformer, form: StepForm) -> tuple[Any, ...]:
    """Arguments of `MaskStepFunction.forward`, random but for what must make sense; from their own generator."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    frames, batch, rows = 1 + form.finished, form.batch, form.rows
    tokens, size, config = model.num_tokens, model.token_dim, model.config
    order_BN = torch.stack([torch.randperm(tokens, generator=generator) for _ in range(batch)])
    order_RN = order_BN.repeat(rows // batch, 1)
    masked_RSN = torch.ones(rows, frames, tokens, dtype=torch.bool)
    masked_RSN[:, : frames - 1] = False
    visible_SF = torch.ones(frames, form.slots, dtype=torch.bool)
    visible_SF[:, -frames:] = False
    of_slots = (rows, model.num_places, config.heads, form.slots, model.head_dim)
    of_places = (rows, model.num_places, config.heads, model.head_dim)
    inputs = StepInputs(
        frames=FrameSequence(
            tokens_BSND=normal(rows, frames, tokens, size),
            masked_BSN=masked_RSN,
            kind_S=torch.arange(frames),
            position_S=torch.arange(frames, dtype=torch.float64) + 1,
            interval_B=torch.ones(rows, dtype=torch.long),
            conditions={name: unknown(one, rows, frames) for name, one in model.condition_tokens.specs.items()},
        ),
        places_Rn=order_RN[:, : form.count].contiguous(),
        draws=[normal(batch, *shape) for shape in drawn_shapes(model, form)],
        temperature=torch.tensor(1.0),
        guidance=torch.tensor(1.5) if form.guided else None,
        appeared_Rn=order_RN[:, -form.count :].contiguous() if form.reuses else None,
    )
    past = GivenPast(
        keys=[normal(*of_slots) for _ in model.blocks],
        values=[normal(*of_slots) for _ in model.blocks],
        visible_SF=visible_SF,
        spatial=[normal(*of_places) for _ in range(2 * len(model.blocks))] if form.reuses else [],
    )
    return as_tree(inputs, past)


class DecodeFunction(nn.Module):
    """Normalised latents of one frame `[1, C, h, w]` → pixels `[1, 3, height, width]` in [−1, 1]; float32."""

    def __init__(self, codec: Codec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latents_BCHW: Tensor) -> Tensor:
        """See the class."""
        raw = self.codec.denormalize(latents_BCHW[:, None])
        return self.codec.decode_raw(raw).float().clamp(-1, 1)[:, 0]
