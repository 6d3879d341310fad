"""Pretrained networks that judge video: I3D (FVD), Inception (FID), LPIPS. Their weights: `magi weights`."""

from magi_video.evaluation.detectors.i3d import I3D

__all__ = ["I3D"]
