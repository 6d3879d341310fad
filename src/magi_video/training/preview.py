"""What the model makes while it learns: the beginning of some training videos, continued, beside the truth."""

from pathlib import Path

import numpy as np
import torch

from magi_video.data import VideoFolder
from magi_video.data.image import contact_sheet, fit_frames, write_image
from magi_video.pipeline import MagiPipeline

MASK_STEPS, DENOISE_STEPS = 8, 20  # cheap: a preview is for the eye


class Preview:
    """Contact sheets of continuations from given first frames, always the same ones.

    Args:
        videos: where the first frames come from.
        pipeline: shares the training model's modules.
        num_frames: of a continuation, the given frame included.
        count: videos in a sheet.
    """

    def __init__(self, videos: VideoFolder, pipeline: MagiPipeline, num_frames: int, count: int = 3) -> None:
        size = (pipeline.config.height, pipeline.config.width)
        long_enough = [index for index, video in enumerate(videos.videos) if video.num_frames >= num_frames]
        spread = np.linspace(0, len(long_enough) - 1, min(count, len(long_enough))).round().astype(int)
        self.pipeline = pipeline
        self.truth: list[np.ndarray] = []
        self.actions: list[np.ndarray | None] = []
        for index in (long_enough[place] for place in spread):
            start = (videos.videos[index].num_frames - num_frames) // 2
            frames = videos.read(index, range(start, start + num_frames))
            self.truth.append(fit_frames(frames.numpy(), *size))
            names = pipeline.config.action_names
            recorded = videos.actions(index, names) if names else None
            # Row i led to frame i + 1.
            self.actions.append(None if recorded is None else recorded[start - 1 : start + num_frames - 1])

    def write(self, path: Path) -> None:
        """Generate with the pipeline's present weights and write truth and result, row by row."""
        self.pipeline.set_progress_bar_config(disable=True)  # training shows its own
        rows, labels = [], []
        for number, (truth, actions) in enumerate(zip(self.truth, self.actions, strict=True)):
            video = self.pipeline(
                image=truth[0],
                num_frames=len(truth),
                num_mask_steps=MASK_STEPS,
                num_denoise_steps=DENOISE_STEPS,
                actions=actions,
                generator=torch.Generator().manual_seed(number),
            ).frames[0]
            rows += [truth, (video * 255).round().astype(np.uint8)]
            labels += ["truth", "continued from frame 0"]
        write_image(path, contact_sheet(rows, labels=labels, columns=8, max_frames=16))
