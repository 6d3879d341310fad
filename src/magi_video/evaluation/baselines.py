"""Clips that need no model and show what a score is worth: what any model must beat, and what no score may like.

real        other real clips: the floor, what a perfect model would get with so few clips
codec       the true clips through the codec: what is lost before a model has done anything
still       the first frame for ever
copy_last   the given frames, then the last of them for ever: the forecast that any model must beat
shuffled    the true clips, each one's frames in an order of its own: every frame right, the motion wrong
"""

from collections.abc import Callable

import numpy as np
import torch

from magi_video.codecs.base import Codec
from magi_video.data.folder import VideoFolder
from magi_video.evaluation.protocols import Protocol
from magi_video.evaluation.realset import ClipSet, Sets, prepare, real_clips
from magi_video.video.image import fit_frames, to_model_range, to_uint8

Clip = np.ndarray
"""uint8 [T, H, W, 3]."""
SHUFFLE_SEED = 7


def still(clip_THWC: Clip) -> Clip:
    """The first frame for ever."""
    return np.repeat(clip_THWC[:1], len(clip_THWC), axis=0)


def copy_last(clip_THWC: Clip, given: int) -> Clip:
    """The first `given` frames, then the last of them for ever; with none given, `still`."""
    given = max(given, 1)
    return np.concatenate([clip_THWC[:given], np.repeat(clip_THWC[given - 1 : given], len(clip_THWC) - given, axis=0)])


def shuffled(clip_THWC: Clip, index: int) -> Clip:
    """The frames in an order drawn for clip `index` of a set; never the true one."""
    random, order = np.random.default_rng([SHUFFLE_SEED, index]), np.arange(len(clip_THWC))
    while len(order) > 1 and (np.diff(order) == 1).all():
        order = random.permutation(len(clip_THWC))
    return clip_THWC[order]


def through_codec(clip_THWC: Clip, codec: Codec) -> Clip:
    """Encoded and decoded. Where the codec compresses time, the last frame is repeated until the latents are whole."""
    frames = len(clip_THWC)
    lacking = codec.num_pixel_frames(codec.covering_latent_frames(frames)) - frames
    whole_THWC = np.concatenate([clip_THWC, np.repeat(clip_THWC[-1:], lacking, axis=0)])
    with torch.no_grad():
        return to_uint8(codec.decode(codec.encode(to_model_range(whole_THWC)[None].to(codec.device)))[0])[:frames]


Baseline = Callable[[Clip, int], Clip]
"""From a true clip and its index in the set to the clip that is scored."""


def baselines(given: int, codec: Codec | None) -> dict[str, Baseline]:
    """Every row that is made of the true clips, by name.

    Args:
        given: frames that a model is given.
        codec: of the models; None leaves its row out.
    """
    rows: dict[str, Baseline] = {} if codec is None else {"codec": lambda clip, index: through_codec(clip, codec)}
    return rows | {
        "still": lambda clip, index: still(clip),
        "copy_last": lambda clip, index: copy_last(clip, given),
        "shuffled": shuffled,
    }


def baseline_sets(
    sets: Sets, protocol: Protocol, videos: VideoFolder, contexts: ClipSet, size: tuple[int, int], codec: Codec | None
) -> dict[str, Sets]:
    """The clips that need no model, as a protocol scores them: other real clips, and what is made of the true ones.

    The other real clips are as many as the model's, the next ones that the protocol chooses, of other videos where
    there are enough; they are left out where the videos give no more.

    Args:
        sets: those of the model.
        protocol: how they are scored.
        videos: that the real clips are of.
        contexts: the true clips that a model continues.
        size: of the model's frames, height and width in pixels.
        codec: of the model.
    """
    count = len(contexts)
    chosen, _ = real_clips(videos, protocol, len(sets.real) + count, size)
    found = {}
    if len(chosen) == len(sets.real) + count:
        found["real"] = Sets(sets.real, chosen.last(count))

    def made(change: Baseline, name: str) -> Sets:
        def read(index: int) -> np.ndarray:
            return prepare(change(fit_frames(contexts[index], *size), index), protocol)

        return Sets(sets.real, ClipSet(contexts.names, read, name, contexts.origins), sets.truth)

    return found | {name: made(change, name) for name, change in baselines(protocol.given, codec).items()}
