"""What the model makes while it learns: the beginning of some training videos, continued, beside the truth."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from magi_video.data.folder import VideoFolder
from magi_video.paradigms import make_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.training.captions import CaptionTable
from magi_video.video.image import contact_sheet, fit_frames, write_image

MASK_STEPS, DENOISE_STEPS = 8, 20  # cheap: a preview is for the eye
VIDEOS = 3
"""In a sheet."""
TITLE = 100
"""Characters of a class's name or a caption that are shown."""


class Preview:
    """Contact sheets of continuations from given first frames, always the same, under the conditions of their videos.

    Args:
        videos: where the first frames come from.
        pipeline: shares the training model's modules.
        num_frames: of a continuation, the given frame included.
        captions: of the videos, where the model takes text.
    """

    def __init__(
        self,
        videos: VideoFolder,
        pipeline: MagiVideoPipeline,
        num_frames: int,
        captions: CaptionTable | None = None,
    ) -> None:
        size = (pipeline.config.height, pipeline.config.width)
        long_enough = [index for index, video in enumerate(videos.videos) if video.num_frames >= num_frames]
        spread = np.linspace(0, len(long_enough) - 1, min(VIDEOS, len(long_enough))).round().astype(int)
        paradigm = make_paradigm(pipeline.config.forcing, pipeline.config.forcing_options)
        self.mask_steps = None if paradigm.steps.get("mask_steps") == 0 else MASK_STEPS
        self.given = pipeline.codec.num_pixel_frames(paradigm.given_frames)
        self.pipeline = pipeline
        self.truth: list[np.ndarray] = []
        self.conditions: list[dict[str, Any]] = []
        for index in (long_enough[place] for place in spread):
            start = (videos.videos[index].num_frames - num_frames) // 2
            frames = videos.read(index, range(start, start + num_frames))
            self.truth.append(fit_frames(frames.numpy(), *size))
            names = pipeline.config.action_names
            recorded = videos.actions(index, names) if names else None
            # Row i led to frame i + 1; what led to the first frame is not used.
            rows = np.arange(start - 1, start + num_frames - 1).clip(min=0)
            actions = None if recorded is None else recorded[rows]
            label = videos.videos[index].label if pipeline.config.class_names else None
            text = None if captions is None else captions.text(index)
            self.conditions.append({"actions": actions, "label": label, "text": text})

    def write(self, path: Path) -> None:
        """Generate with the pipeline's present weights and write truth and result, row by row."""
        self.pipeline.set_progress_bar_config(disable=True)  # training shows its own
        rows, labels = [], []
        for number, (truth, conditions) in enumerate(zip(self.truth, self.conditions, strict=True)):
            video = self.pipeline(
                video=truth[: self.given],
                num_frames=len(truth),
                mask_steps=self.mask_steps,
                denoise_steps=self.pipeline.transformer.diffusion_head.find_denoise_steps(None, DENOISE_STEPS),
                generator=torch.Generator().manual_seed(number),
                **conditions,
            ).frames[0]
            rows += [truth, (video * 255).round().astype(np.uint8)]
            labels += ["truth", self._title(conditions)]
        write_image(path, contact_sheet(rows, labels=labels, columns=8, max_frames=16))

    def _title(self, conditions: dict[str, Any]) -> str:
        """The line above a continuation: its video's class and caption, if the model takes them."""
        title = f"continued from frame {self.given - 1}"
        if conditions["label"] is not None:
            title += f"; class {_shortened(self.pipeline.config.class_names[conditions['label']])}"
        if conditions["text"] is not None:
            title += f"; text: {_shortened(conditions['text'])}"
        return title


def _shortened(words: str) -> str:
    return words if len(words) <= TITLE else f"{words[: TITLE - 1]}…"
