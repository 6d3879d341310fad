"""What a head is asked: the conditions z of tokens, as training has them and as the model's own rollouts do.

The head is replaced by one that keeps every z and passes rollouts on to it, so that each paradigm masks, reads and
generates in its own way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from magi_video.codecs.base import Codec
from magi_video.codecs.words import OneHot, WordEncoder
from magi_video.data.clips import ClipDataset, ClipSampler, PixelReader
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.fast.speed import begin_past
from magi_video.models.architecture import ACTION, LABEL, TEXT, Architecture
from magi_video.models.head import DiffusionHead, Noise, TokenHead
from magi_video.models.random import Generators, SampleNoise
from magi_video.models.sequence import Clip
from magi_video.paradigms.base import Paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.rollout import Rollout
from magi_video.sampling.sampling import ResolvedSampling, Speed
from magi_video.training.captions import CaptionTable, find_texts
from magi_video.training.clips import as_clip

ROLLOUT_SPEEDS: tuple[Speed, ...] = ("exact", "balanced", "realtime")
"""Rollouts take the mask steps of these speeds in turn: with fewer of them the head decides more."""
HELD = 8
"""Latent frames for which a random action is held, in clips that a model makes without data."""


class ListeningHead(TokenHead):
    """A head that keeps the z of every token it is asked for.

    Args:
        head: makes the tokens.
    """

    def __init__(self, head: DiffusionHead) -> None:
        super().__init__(head.token_dim)
        self.head = head
        self.samplers, self.options = head.samplers, head.options  # type: ignore[misc]
        self.kept: list[Tensor] = []

    @classmethod
    def of(cls, architecture: Architecture) -> NoReturn:
        """Refused: it stands before a head that there is.

        Raises:
            MagiError: always.
        """
        raise MagiError("a head that listens is no model's own")

    def find_first_step(self, *args: Any, **options: Any) -> int | None:
        """See `TokenHead.find_first_step`."""
        return self.head.find_first_step(*args, **options)

    def reset_parameters(self) -> None:
        """Nothing is changed."""

    def total_loss(
        self, target_BKD: Tensor, z_BKW: Tensor, counted_BK: Tensor, repeats: int, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        """Keeps z of the tokens that count; there is no loss."""
        self.kept.append(z_BKW[counted_BK].float())
        return z_BKW.new_zeros(()), counted_BK.sum().float()

    def sample(self, z_BnW: Tensor, noise: Noise, *args: Any, **options: Any) -> Tensor:
        """Keeps z, and samples."""
        self.kept.append(z_BnW.flatten(0, 1).float())
        return self.head.sample(z_BnW, noise, *args, **options)


@dataclass(frozen=True)
class ClipSource:
    """Clips of a data set, or of the model's own making.

    Attributes:
        pipe: the model.
        paradigm: it generates by.
        batch: clips at a time.
        seed: of which clips, and of everything that is drawn for them.
        videos: the data set; None for the model's own.
        max_interval: of clips.
    """

    pipe: MagiVideoPipeline
    paradigm: Paradigm
    batch: int
    seed: int
    videos: VideoFolder | None
    max_interval: int

    def batches(self) -> Iterator[Clip]:
        """Without end."""
        return self._own() if self.videos is None else self._read(self.videos)

    def _read(self, videos: VideoFolder) -> Iterator[Clip]:
        model, codec, config = self.pipe.transformer, self.pipe.codec, self.pipe.config
        reader = PixelReader(videos, config.height, config.width)
        length = codec.num_pixel_frames(model.config.num_frames)
        clips = ClipDataset(
            videos, reader, length, 1, self.max_interval,
            action_names=config.action_names, temporal_factor=codec.temporal_factor,
        )  # fmt: skip
        captions = read_texts(self.pipe, videos) if TEXT in model.condition_tokens.specs else None
        requests = iter(ClipSampler(len(clips), self.seed))
        while True:
            items = [clips[next(requests)] for _ in range(self.batch)]
            batch = {name: torch.stack([item[name] for item in items]).to(model.device) for name in items[0]}
            latents_BTCHW = encode(codec, batch["frames"])
            frames = latents_BTCHW.shape[1]
            text = None if captions is None else captions.look_up(batch["video"], frames).to(model.device)
            yield as_clip(model, batch, latents_BTCHW, text)

    def _own(self) -> Iterator[Clip]:
        """From nothing: random actions, each held for some frames, and random labels."""
        model = self.pipe.transformer
        if TEXT in model.condition_tokens.specs:
            raise MagiError("a model that takes text is distilled on videos with captions: give --data")
        generator = torch.Generator().manual_seed(self.seed)
        frames, first = model.config.num_frames, 0
        while True:
            conditions = random_conditions(self.pipe, self.batch, frames, generator)
            interval_B = torch.randint(1, self.max_interval + 1, (self.batch,), generator=generator).to(model.device)
            empty = torch.zeros(self.batch, frames, model.num_tokens, model.token_dim, device=model.device)
            clip = Clip(empty, interval_B, conditions)
            seeds = range(self.seed + first, self.seed + first + self.batch)
            tokens_BTND = roll_out(self.pipe, self.paradigm, clip, 0, self.pipe.resolve(), seeds)
            first += self.batch
            yield replace(clip, tokens_BTND=tokens_BTND)


@torch.no_grad()
def encode(codec: Codec, frames_BTCHW: Tensor) -> Tensor:
    """Normalised latents of pixels in [−1, 1]."""
    return codec.encode(frames_BTCHW)


def read_texts(pipe: MagiVideoPipeline, videos: VideoFolder) -> CaptionTable:
    """The videos' captions, encoded as the model takes them.

    Raises:
        MagiError: no video has one, or one has words that the model does not know.
    """
    found = find_texts(videos)
    texts = found.texts
    if not texts or pipe.text_folder is None:
        raise MagiError(f"{videos.root}: the model takes text, but no video has a caption ({found.summary})")
    encoder = pipe.find_text_encoder()
    vectors_UKA: Tensor | OneHot = pipe.encode_text([encoder.example])  # refuses an encoder that is not this model's
    tokens = vectors_UKA.shape[1]
    if isinstance(encoder, WordEncoder):
        found.check(encoder.check)
        vectors_UKA = encoder.number(texts, tokens)
    else:
        vectors_UKA = pipe.encode_text(texts)
    return CaptionTable(texts, vectors_UKA, found.index_V, pipe.text_folder)


def random_conditions(
    pipe: MagiVideoPipeline, batch: int, frames: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Of clips that nobody has recorded: one action or none, held for `HELD` latent frames, and a label."""
    model, conditions = pipe.transformer, {}
    specs = model.condition_tokens.specs
    if ACTION in specs:
        size = specs[ACTION].size
        held_BH = torch.randint(0, size + 1, (batch, -(-frames // HELD)), generator=generator)
        action_BT = held_BH.repeat_interleave(HELD, dim=1)[:, :frames]
        conditions[ACTION] = torch.nn.functional.one_hot(action_BT, size + 1)[..., :size].float().to(model.device)
    if LABEL in specs:
        label_B = torch.randint(0, specs[LABEL].size, (batch,), generator=generator)
        conditions[LABEL] = label_B[:, None].expand(-1, frames).to(model.device)
    return conditions


@torch.no_grad()
def roll_out(
    pipe: MagiVideoPipeline,
    paradigm: Paradigm,
    clip: Clip,
    given: int,
    sampling: ResolvedSampling,
    seeds: Sequence[int],
) -> Tensor:
    """Continue clips after some given frames, under their own conditions: tokens of all frames `[B, T, N, D]`."""
    model, total_frames = pipe.transformer, clip.tokens_BTND.shape[1]
    paradigm = paradigm.sampled(sampling)
    paradigm.check_context(given, total_frames)
    rollout = Rollout(
        model, paradigm, SampleNoise.from_seeds(list(seeds), model.device), sampling, clip.interval_B, total_frames,
        past=begin_past(paradigm, model, len(seeds), total_frames, sampling),
    )  # fmt: skip

    def conditions(frame: int) -> dict[str, Tensor]:
        return {name: value_BT[:, frame] for name, value_BT in clip.conditions.items()}

    made = []
    for frame in range(given):
        rollout.observe(clip.tokens_BTND[:, frame], conditions(frame))
        made.append(clip.tokens_BTND[:, frame : frame + 1])
    while rollout.begun < total_frames:
        more = paradigm.step_frames(model, rollout.begun, total_frames)
        made.append(rollout.predict_frames([conditions(rollout.begun + s) for s in range(more)]))
    return torch.cat(made, dim=1)


@torch.no_grad()
def training_inputs(pipe: MagiVideoPipeline, paradigm: Paradigm, clip: Clip, generator: torch.Generator) -> Tensor:
    """z of the tokens that training has a loss on, after the true frames: `[M, W]`."""
    with listening(pipe) as head:
        paradigm.total_loss(pipe.transformer, clip, generator)
    return torch.cat(head.kept)


def rollout_inputs(
    pipe: MagiVideoPipeline, paradigm: Paradigm, clip: Clip, sampling: ResolvedSampling, seeds: Sequence[int]
) -> Tensor:
    """z of the tokens of continuations of clips, after what the model itself has made: `[M, W]`."""
    with listening(pipe) as head:
        roll_out(pipe, paradigm, clip, max(1, paradigm.given_frames), sampling, seeds)
    return torch.cat(head.kept)


@contextmanager
def listening(pipe: MagiVideoPipeline) -> Iterator[ListeningHead]:
    """The model's head is a `ListeningHead` meanwhile."""
    model = pipe.transformer
    head = model.diffusion_head
    assert isinstance(head, DiffusionHead)
    listener = ListeningHead(head)
    model.diffusion_head = listener
    try:
        yield listener
    finally:
        model.diffusion_head = head


def rollout_sampling(pipe: MagiVideoPipeline, number: int) -> ResolvedSampling:
    """The model's own sampling, with the mask steps of one speed or another."""
    fast = pipe.resolve(ROLLOUT_SPEEDS[number % len(ROLLOUT_SPEEDS)])
    own = pipe.resolve(guidance_scale=1.0)
    fields = own.given() | {"mask_steps": fast.mask_steps}
    return ResolvedSampling(**fields)
