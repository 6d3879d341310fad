"""Videos in and out: reading and writing files, data sets, clips for training, cached latents, recorded gameplay.

To add a data set with a layout of its own, write one file beside `ucf101.py`: a subclass of `VideoFolder` that finds
the files and their classes and hands them to `_add`, which does the rest (counting frames, skipping what cannot be
read, finding actions). To add a family of games, see `games.py`.
"""

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
from magi_video.data.latents import LatentCache
from magi_video.data.record import RecordingSummary, record
from magi_video.data.scan import Skipped
from magi_video.data.ucf101 import UCF101
from magi_video.data.video import VideoInfo, VideoWriter, inspect_video, read_frames, write_video

__all__ = [
    "UCF101",
    "ClipDataset",
    "ClipRequest",
    "ClipSampler",
    "FrameReader",
    "LatentCache",
    "PixelReader",
    "RecordingSummary",
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
    "record",
    "to_model_range",
    "to_uint8",
    "write_image",
    "write_video",
]
