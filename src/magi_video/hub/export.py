"""A model as pure functions without Python: `torch.export` programs (.pt2), or ONNX graphs, and what drives them.

    frame    tokens, hidden, kind, position, interval, conditions, past → z, and the frame's keys and values
    denoise  noisy tokens, time, z → the head's output
    logits   z → of each code; of a categorical head, in the place of denoise, with
    look_up  codes → tokens
    encode   one frame's pixels → tokens
    decode   tokens → pixels, of one latent frame; of a codec that compresses time, of a whole video

A rollout over them is a page of code, in any language: examples/exported_rollout.py. The past is a pair of tensors that
the driver keeps; `frame` never changes it, so the pass over a masked frame and the one that makes a finished frame part
of the past are the same program. Random draws, the order of tokens and the sampler's arithmetic are the driver's, and
so is guidance: a second row of the batch, without the conditions of the first. `export.json` holds the numbers.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from typing_extensions import override

from magi_video.errors import MagiError
from magi_video.fast.graph import GivenCache, GivenLayer
from magi_video.fast.onnx_graph import quiet
from magi_video.files.atomic import part_beside, write_json
from magi_video.files.folders import make_folder
from magi_video.files.shapes import head_inputs
from magi_video.installation import install_command
from magi_video.models.categorical import CategoricalHead
from magi_video.models.conditions import unknown
from magi_video.models.distributional import DistributionalHead, evenly_spaced_times, step_tables
from magi_video.models.epsilon import ancestral_tables, respaced_timesteps
from magi_video.models.head import DiffusionHead
from magi_video.models.sequence import MASKED, FrameSequence
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms import find_paradigm
from magi_video.paradigms.masking import unmasking_schedule
from magi_video.pipeline.pipeline import MagiVideoPipeline

FACTS = "export.json"
OF_CODES = ("top_k", "top_p", "order", "choice_temperature")
"""Fields of `Sampling` by which codes are drawn."""
MAX_FRAMES = 10_000  # a past that long fits in no memory
Programs = dict[str, ExportedProgram]


class FrameStep(nn.Module):
    """The transformer's pass over one frame."""

    def __init__(self, model: MagiVideoTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens_BND: Tensor,
        masked_BN: Tensor,
        kind_1: Tensor,
        position_1: Tensor,
        interval_B: Tensor,
        conditions: dict[str, Tensor],
        keys_XBLHFd: Tensor,
        values_XBLHFd: Tensor,
        visible_F: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """z of all tokens, and the frame's keys and values.

        Args:
            tokens_BND: float32; what lies under `masked_BN` is not read.
            masked_BN: boolean, True where a token is still masked.
            kind_1: `MASKED` while any is, else the paradigm's `cached_kind`; int64.
            position_1: temporal position of the frame, float32.
            interval_B: interval between frames, int64.
            conditions: by name, `[B, 1]` int64 (−1: unknown) or `[B, 1, size]` float32 (NaN: unknown).
            keys_XBLHFd: of the X blocks, at F slots; the order of slots has no meaning.
            values_XBLHFd: likewise.
            visible_F: boolean, the slots that hold a frame of the past.

        Returns:
            z `[B, N, width]`, keys and values `[X, B, L, H, d]`.
        """
        frame = FrameSequence(
            tokens_BSND=tokens_BND[:, None],
            masked_BSN=masked_BN[:, None],
            kind_S=kind_1,
            position_S=position_1,
            interval_B=interval_B,
            conditions=conditions,
        )
        layers = [GivenLayer(*pair) for pair in zip(keys_XBLHFd.unbind(0), values_XBLHFd.unbind(0), strict=True)]
        past: Any = GivenCache(layers, visible_F[None])
        z_BSNW = self.model(frame, past)
        new = [layer.new for layer in layers if layer.new is not None]
        keys, values = (torch.stack([pair[part][:, :, :, 0] for pair in new]) for part in (0, 1))
        return z_BSNW[:, 0], keys, values


class DenoiseStep(nn.Module):
    """One evaluation of the diffusion head."""

    def __init__(self, model: MagiVideoTransformer) -> None:
        super().__init__()
        assert isinstance(model.diffusion_head, DiffusionHead)
        self.net = model.diffusion_head.net

    def forward(self, x_BnD: Tensor, time: Tensor, z_BnW: Tensor) -> Tensor:
        """Noisy tokens float32, time (a number, 0…1000, float32) and z → the head's output `[B, n, D or 2 D]`.

        A distributional head's noisy tokens are `[B, n, 2 D]`: behind each stands the noise that its draw comes from.
        """
        dtype = self.net.condition_embed.weight.dtype
        return self.net(x_BnD.to(dtype), time, self.net.condition_embed(z_BnW.to(dtype))).float()


class Logits(nn.Module):
    """What a categorical head predicts."""

    def __init__(self, model: MagiVideoTransformer) -> None:
        super().__init__()
        assert isinstance(model.diffusion_head, CategoricalHead)
        self.head = model.diffusion_head

    def forward(self, z_BnW: Tensor) -> Tensor:
        """z → logits of the V codes, float32 `[B, n, V]`."""
        return self.head.predict(z_BnW)


class LookUp(Logits):
    """The tokens that codes stand for."""

    @override
    def forward(self, codes_Bn: Tensor) -> Tensor:
        """Codes, int64, → tokens float32 `[B, n, D]`."""
        return self.head.look_up(codes_Bn)


class Encode(nn.Module):
    """Pixels `[1, 3, height, width]` in [0, 1] → tokens `[1, N, D]`."""

    def __init__(self, pipe: MagiVideoPipeline) -> None:
        super().__init__()
        self.codec, self.patchify = pipe.codec, pipe.transformer.patchify

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """See the class."""
        raw = self.codec.encode_raw(pixels_BCHW[:, None] * 2 - 1).float()
        return self.patchify((raw - self.codec._latents_mean) / self.codec._latents_std)[:, 0]


class Decode(nn.Module):
    """Tokens of latent frames `[1, L, N, D]` → pixels of what they hold, `[1, T, 3, height, width]` in [0, 1]."""

    def __init__(self, pipe: MagiVideoPipeline) -> None:
        super().__init__()
        self.codec, self.unpatchify = pipe.codec, pipe.transformer.unpatchify

    def forward(self, tokens_BLND: Tensor) -> Tensor:
        """See the class."""
        latents = self.codec.denormalize(self.unpatchify(tokens_BLND))
        return ((self.codec.decode_raw(latents).float() + 1) / 2).clamp(0, 1)


@dataclass(frozen=True)
class Extent:
    """What the programs are made for, in latent frames.

    Attributes:
        slots: frames that the past may hold.
        decoded: frames that `decode` takes at once. What a decoder remembers of a video that compresses time differs
            from codec to codec, in shape and from piece to piece; a whole video needs no memory.
    """

    slots: int
    decoded: int

    @classmethod
    def of(cls, pipe: MagiVideoPipeline, frames: int | None = None) -> Self:
        """Of videos of up to `frames` frames, those of a training clip if None; "rope" has no limit but the codec's.

        Raises:
            MagiError: `frames` is out of 2…`MAX_FRAMES`.
        """
        if frames is not None and not 2 <= frames <= MAX_FRAMES:
            raise MagiError(f"frames must lie in 2…{MAX_FRAMES}, got {frames}")
        trained = pipe.transformer.config.num_frames
        latents = trained if frames is None else pipe.codec.covering_latent_frames(frames)
        slides = pipe.transformer.config.temporal_position == "rope"
        return cls((trained if slides else latents) - 1, 1 if pipe.codec.temporal_factor == 1 else latents)


@torch.no_grad()
def export_frame_step(model: MagiVideoTransformer, slots: int) -> Programs:
    """`frame` and the programs of the head, for any batch size and number of tokens that the head is asked for.

    Args:
        model: in evaluation mode.
        slots: F, frames that the past may hold.
    """
    if slots < 1:
        raise MagiError(f"the past needs at least 1 slot, got {slots}")
    cache = model.make_cache(2, None if model.config.temporal_position == "rope" else model.config.num_frames)
    shape = (len(cache.layers), *cache.layers[0].keys.shape)
    past = torch.zeros(*shape[:-2], slots, shape[-1], dtype=cache.layers[0].keys.dtype)
    conditions = {name: unknown(spec, 2, 1) for name, spec in model.condition_tokens.specs.items()}
    batch, tokens = Dim("batch", min=1, max=1024), Dim("tokens", min=1, max=model.num_tokens)
    frame = (
        torch.zeros(2, model.num_tokens, model.token_dim),
        torch.ones(2, model.num_tokens, dtype=torch.bool),
        torch.tensor([MASKED]),
        torch.zeros(1),
        torch.ones(2, dtype=torch.long),
        conditions,
        past,
        past.clone(),
        torch.zeros(slots, dtype=torch.bool),
    )
    of_batch, of_past = {0: batch}, {1: batch}
    shapes = (of_batch, of_batch, None, None, of_batch, dict.fromkeys(conditions, of_batch), of_past, of_past, None)
    some, of_tokens = min(2, model.num_tokens), {0: batch, 1: tokens}
    z_BnW = torch.zeros(2, some, model.config.width)
    programs = {"frame": torch.export.export(FrameStep(model).eval(), frame, dynamic_shapes=shapes)}
    if isinstance(model.diffusion_head, CategoricalHead):
        codes = (torch.zeros(2, some, dtype=torch.long),)
        programs["logits"] = torch.export.export(Logits(model).eval(), (z_BnW,), dynamic_shapes=(of_tokens,))
        programs["look_up"] = torch.export.export(LookUp(model).eval(), codes, dynamic_shapes=(of_tokens,))
    else:
        noisy, of_noisy = (
            (torch.zeros(2, some, head_inputs(model.architecture)), torch.tensor(0.0), z_BnW),
            (of_tokens, None, of_tokens),
        )
        programs["denoise"] = torch.export.export(DenoiseStep(model).eval(), noisy, dynamic_shapes=of_noisy)
    return programs


@torch.no_grad()
def export_codec(pipe: MagiVideoPipeline, decoded: int) -> Programs:
    """`encode`, of one frame, and `decode`, of so many latent frames."""
    pixels = torch.zeros(1, 3, pipe.config.height, pipe.config.width)
    tokens = torch.zeros(1, decoded, pipe.transformer.num_tokens, pipe.transformer.token_dim)
    return {
        "encode": torch.export.export(Encode(pipe).eval(), (pixels,)),
        "decode": torch.export.export(Decode(pipe).eval(), (tokens,)),
    }


def facts(pipe: MagiVideoPipeline, extent: Extent) -> dict[str, Any]:
    """What a driver needs to know: sizes, kinds, and the numbers of the schedule and the sampler."""
    model = pipe.transformer
    cache = model.make_cache(1, None if model.config.temporal_position == "rope" else model.config.num_frames)
    blocks, (_, places, heads, _, size) = len(cache.layers), cache.layers[0].keys.shape
    own = pipe.resolve()
    times: list[float] = []  # none of codes, which are drawn at once
    rows: list[list[float]] = []
    chain: list[list[float]] = []
    if isinstance(model.diffusion_head, DistributionalHead):
        times = [float(time) for time in evenly_spaced_times(own.denoise_steps)[::-1]]
        chain = [list(row) for row in step_tables(own.denoise_steps)]
    elif own.first_step is not None:
        times = [float(time) for time in respaced_timesteps(own.denoise_steps, own.first_step)[::-1]]
        rows = [list(row) for row in ancestral_tables(own.denoise_steps, own.first_step)]
    elif not model.config.codes:
        times = torch.linspace(1000, 0, own.denoise_steps + 1)[:-1].tolist()
    return {
        "height": pipe.config.height,
        "width": pipe.config.width,
        "num_tokens": model.num_tokens,
        "token_dim": model.token_dim,
        "past": [blocks, places, heads, extent.slots, size],
        "temporal_factor": pipe.codec.temporal_factor,
        "decoded_at_once": extent.decoded,
        "trained_frames": model.config.num_frames,
        "temporal_position": model.config.temporal_position,
        "kinds": {"masked": MASKED, "finished": find_paradigm(pipe.config.forcing).cached_kind},
        "conditions": {name: vars(spec) for name, spec in model.condition_tokens.specs.items()},
        "action_names": list(pipe.config.action_names),
        "class_names": list(pipe.config.class_names),
        "unmasking": unmasking_schedule(model.num_tokens, own.mask_steps),
        "head": model.config.head,
        "times": times,
        "ancestral": rows,
        "distributional": chain,
        "temperature": own.temperature,
        "last_temperature": own.last_temperature,
        **({name: getattr(own, name) for name in OF_CODES} if model.config.codes else {}),
    }


def check_own_sampling(pipe: MagiVideoPipeline) -> None:
    """Refuse a model whose own sampling `export.json` has no numbers for: a driver would sample it in another way.

    Raises:
        MagiError: another sampler than the head's default, an order that is not drawn or chosen token by token, or
            denoise steps that fall over the mask steps.
    """
    own, head = pipe.resolve(), pipe.transformer.diffusion_head
    if own.sampler != head.samplers[0]:
        raise MagiError(
            f"not for the sampler {own.sampler}, which this model is sampled with: a driver of the programs takes "
            f"{head.samplers[0]} steps"
        )
    if own.order == "sparse-to-dense":
        raise MagiError(
            "not for the order sparse-to-dense, as this model's own is: a driver of the programs takes a random one"
        )
    if own.last_denoise_steps not in (None, own.denoise_steps):
        raise MagiError(
            f"not for denoise steps that fall from {own.denoise_steps} to {own.last_denoise_steps} over the mask steps "
            "(last_denoise_steps), as this model's own do: a driver of the programs takes the same in each"
        )


def export_model(
    pipe: MagiVideoPipeline, out: Path, form: Literal["pt2", "onnx"] = "pt2", frames: int | None = None
) -> list[Path]:
    """Write a model's programs and `export.json` into a folder.

    Args:
        pipe: on the CPU.
        out: the folder; made if needed.
        form: "pt2", or "onnx" (needs onnx and onnxscript).
        frames: see `Extent.of`.

    Returns:
        The files.

    Raises:
        MagiError: ONNX is asked for and not installed, `frames` is out of its range, the programs are not for the
            model's paradigm or its own sampling, or `out` cannot be written.
    """
    if form == "onnx":
        try:
            import onnxscript  # noqa: F401  (torch.onnx needs it)
        except ImportError:
            raise MagiError(f"ONNX is not installed: {install_command('export')}") from None
    paradigm = find_paradigm(pipe.config.forcing)
    if not paradigm.frame_cache:
        raise MagiError(
            f"not for the paradigm {paradigm.name}: the programs read one frame after a cache of finished frames, and "
            f"{paradigm.name} makes a {paradigm.unit} at a time from another past"
        )
    if paradigm.past == "noisy":
        raise MagiError(
            f"not for the paradigm {paradigm.name}: the programs' driver fills masked frames, and {paradigm.name} "
            "denoises whole frames"
        )
    check_own_sampling(pipe)
    if pipe.transformer.canvas_out is not None:
        raise MagiError("not for a model that paints a canvas: the programs' driver begins with the mask token alone")
    extent = Extent.of(pipe, frames)
    make_folder(out)
    part = part_beside(out / "export")
    with quiet():
        programs = export_codec(pipe, extent.decoded) | export_frame_step(pipe.transformer, extent.slots)
        names = write_programs(programs, part, out, form, facts(pipe, extent))
    return [out / name for name in names]


def write_programs(
    programs: dict[str, ExportedProgram], part: Path, out: Path, form: Literal["pt2", "onnx"], record: dict[str, Any]
) -> list[str]:
    """Write programs and their facts into `part`, then move them to `out`; returns the files' names."""
    try:
        part.mkdir(exist_ok=True)
        for name, program in programs.items():
            if form == "pt2":
                torch.export.save(program, part / f"{name}.pt2")
            else:
                converted = torch.onnx.export(program, dynamo=True, verbose=False)
                assert converted is not None
                converted.save(part / f"{name}.onnx")  # weights beyond 2 GB go into a file beside it
        write_json(part / FACTS, record)
        names = sorted(file.name for file in part.iterdir())
        for name in names:
            (part / name).replace(out / name)
    except OSError as error:
        raise MagiError(f"{out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return names
