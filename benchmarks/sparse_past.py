"""What kept frames are worth to a model: its loss after a sparse past, after a wrong one, and after its neighbours.

    python benchmarks/sparse_past.py coinrun runs/mine --data recordings/coinrun/test

Of videos that were not trained on, the loss of the latest frames but the first (by the model's paradigm, the paper's
mask ratios, without noise) is taken three times, with the same masks and noise: after the older frames that
`FrameMemory` keeps, after those of another video, and after the frames just before, as in the plain window. A model
that uses kept frames loses by wrong ones. Of each difference the mean over clips with its 95 % interval (bootstrap).
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from look_back import KEEPS, interval
from magi_video import MagiVideoPipeline
from magi_video.data.clips import PixelReader, clip_actions
from magi_video.data.folder import VideoFolder
from magi_video.data.sparse_past import SparsePast
from magi_video.exposure.memory import FrameMemory
from magi_video.models.architecture import ACTION
from magi_video.models.sequence import Clip
from magi_video.paradigms.base import find_paradigm
from magi_video.paradigms.masking import NoiseInjection
from magi_video.sampling.sampling import Sampling


def draw_clips(
    pipe: MagiVideoPipeline, videos: VideoFolder, memory: FrameMemory, clips: int
) -> dict[str, tuple[Tensor, Tensor]]:
    """Tokens `[B, T, N, D]` and actions `[B, T, A]` of clips with a sparse past, and of the window that ends so."""
    reader, random = PixelReader(videos, pipe.config.height, pipe.config.width), np.random.default_rng(0)
    past, made = SparsePast(1.0, memory), dict[str, list[tuple[Tensor, Tensor]]](sparse=[], window=[])
    for video in random.permutation(len(videos.videos)):
        frames = past.draw(random, videos.videos[video].num_frames, 1)
        recorded = videos.actions(video, pipe.config.action_names)
        if frames is None or recorded is None:
            continue
        window = list(range(frames[-1] - memory.window + 1, frames[-1] + 1))
        for name, shown in (("sparse", frames), ("window", window)):
            latents_TCHW = pipe.codec.encode(reader.read(video, shown)[None])
            action_TA = torch.from_numpy(clip_actions(recorded, shown, 1))
            action_TA[0] = torch.nan
            made[name].append((pipe.transformer.patchify(latents_TCHW)[0], action_TA))
        if len(made["sparse"]) == clips:
            break
    return {name: tuple(map(torch.stack, zip(*of, strict=True))) for name, of in made.items()}  # type: ignore[misc]


def losses(pipe: MagiVideoPipeline, clips: tuple[Tensor, Tensor], learned: int) -> np.ndarray:
    """Of each clip, the mean loss of its last frames, so many."""
    exposure, found = NoiseInjection(levels=0), list[float]()  # true frames: the question is which ones are read
    paradigm = find_paradigm(pipe.config.forcing)(exposure=exposure, **pipe.config.forcing_options)
    for seed, (tokens_TND, action_TA) in enumerate(zip(*clips, strict=True)):
        of = Clip(tokens_TND[None], torch.ones(1, dtype=torch.long), {ACTION: action_TA[None]})
        last_T = torch.arange(len(tokens_TND)) >= len(tokens_TND) - learned
        of = replace(of, learned_BT=last_T[None])
        found.append(float(paradigm.loss(pipe.transformer, of, torch.Generator().manual_seed(seed))))
    return np.array(found)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    videos = VideoFolder(options.data)
    clips: dict[str, tuple[Tensor, Tensor]] = {}
    for model in options.models:
        pipe = MagiVideoPipeline.from_pretrained(model)
        memory = FrameMemory.of(pipe.transformer.config.num_frames, Sampling.of(None, **KEEPS))
        assert memory is not None
        if not clips:  # one codec, so the same latents for all models
            clips = draw_clips(pipe, videos, memory, options.clips)
            (sparse_BTND, sparse_BTA), kept = clips["sparse"], memory.kept
            wrong = [torch.cat([x[:, :kept].roll(1, 0), x[:, kept:]], 1) for x in (sparse_BTND, sparse_BTA)]
            clips["wrong"] = wrong[0], wrong[1]
        loss = {name: losses(pipe, of, memory.latest - 1) for name, of in clips.items()}
        print(model, {name: interval(one, 4) for name, one in loss.items()})
        print("  wrong kept frames, more than true ones:", interval(loss["wrong"] - loss["sparse"], 4))
        print("  the window, more than a sparse past:", interval(loss["window"] - loss["sparse"], 4), flush=True)


if __name__ == "__main__":
    main()
