"""Videos in and out: reading and writing files, data sets, clips for training, cached latents, recorded gameplay.

To add a data set with a layout of its own, write one file beside `ucf101.py`: a subclass of `VideoFolder` that finds
the files and their classes and hands them to `_add`, which does the rest (counting frames, skipping what cannot be
read, finding actions). To add a family of games, see `games.py`.
"""

from typing import TYPE_CHECKING

from magi_video.lazy import loader

if TYPE_CHECKING:
    from magi_video.data.clips import (
        ClipDataset,
        ClipRequest,
        ClipSampler,
        FrameReader,
        PixelReader,
        clip_frames,
        max_interval,
    )
    from magi_video.data.folder import Video, VideoFolder
    from magi_video.data.image import contact_sheet, fit_frames, read_image, to_model_range, to_uint8, write_image
    from magi_video.data.kinetics import Kinetics600
    from magi_video.data.latents import LatentCache
    from magi_video.data.scan import Skipped
    from magi_video.data.ucf101 import UCF101
    from magi_video.data.video import VideoInfo, VideoWriter, inspect_video, read_frames, write_video

__all__ = [
    "UCF101",
    "ClipDataset",
    "ClipRequest",
    "ClipSampler",
    "FrameReader",
    "Kinetics600",
    "LatentCache",
    "PixelReader",
    "Skipped",
    "Video",
    "VideoFolder",
    "VideoInfo",
    "VideoWriter",
    "clip_frames",
    "contact_sheet",
    "fit_frames",
    "inspect_video",
    "max_interval",
    "read_frames",
    "read_image",
    "to_model_range",
    "to_uint8",
    "write_image",
    "write_video",
]

# Loaded on first use: looking through videos (`inspection`) needs no torch.
_HOMES = {
    "ClipDataset": "clips",
    "ClipRequest": "clips",
    "ClipSampler": "clips",
    "FrameReader": "clips",
    "Kinetics600": "kinetics",
    "LatentCache": "latents",
    "PixelReader": "clips",
    "Skipped": "scan",
    "UCF101": "ucf101",
    "Video": "folder",
    "VideoFolder": "folder",
    "VideoInfo": "video",
    "VideoWriter": "video",
    "clip_frames": "clips",
    "contact_sheet": "image",
    "fit_frames": "image",
    "inspect_video": "video",
    "max_interval": "clips",
    "read_frames": "video",
    "read_image": "image",
    "to_model_range": "image",
    "to_uint8": "image",
    "write_image": "image",
    "write_video": "video",
}

__getattr__ = loader(__name__, _HOMES)
