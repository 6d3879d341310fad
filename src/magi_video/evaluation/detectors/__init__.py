"""Pretrained networks that judge video: I3D (FVD), Inception (FID), LPIPS. Their weights: `magi weights`."""

from magi_video.evaluation.detectors.i3d import I3D
from magi_video.evaluation.detectors.inception import Inception
from magi_video.evaluation.detectors.lpips import LPIPS

__all__ = ["I3D", "LPIPS", "Inception"]
