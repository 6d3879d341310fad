"""Paradigms: the rows of the paper's table 1, one file each, chosen by one configuration key, `forcing`.

How to add one
--------------
Write a file here with a subclass of `Paradigm` (of `MaskedFrames`, if frames are masked) under `@register`, and import
it below. Recipes, the command line, the model card and the documents take their choices from the registry.
"""

from magi_video.models.sequence import Clip
from magi_video.paradigms.base import PARADIGMS, Paradigm, find_paradigm, make_paradigm, register
from magi_video.paradigms.complete import CompleteTeacherForcing
from magi_video.paradigms.confidence import ConfidenceOrder
from magi_video.paradigms.diffusion import DiffusionForcing, DiffusionForcingVelocity
from magi_video.paradigms.genie import Genie
from magi_video.paradigms.joint import Joint
from magi_video.paradigms.masked import MaskedTeacherForcing
from magi_video.paradigms.masked_frames import MaskedFrames
from magi_video.paradigms.masking import MaskRatio, NoiseInjection
from magi_video.paradigms.raster import Raster
from magi_video.paradigms.videomar import VideoMAR
from magi_video.paradigms.window import Window

__all__ = [
    "PARADIGMS",
    "Clip",
    "CompleteTeacherForcing",
    "ConfidenceOrder",
    "DiffusionForcing",
    "DiffusionForcingVelocity",
    "Genie",
    "Joint",
    "MaskRatio",
    "MaskedFrames",
    "MaskedTeacherForcing",
    "NoiseInjection",
    "Paradigm",
    "Raster",
    "VideoMAR",
    "Window",
    "find_paradigm",
    "make_paradigm",
    "register",
]
