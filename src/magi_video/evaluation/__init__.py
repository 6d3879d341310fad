"""Scores of generated video: how far it is from real video, and from the video it should have continued.

`score` compares two sets of clips, `evaluate` continues real clips with a model and scores the result, both by a named
`Protocol`. Beneath them: `frechet` (the distance between two sets of features), `motion` (how much moves, without any
network) and `metrics` (both and PSNR, SSIM, LPIPS as `torchmetrics` classes that give the same figure on any number of
processes). Everything is loaded when it is asked for, so that reading a table of weights does not load scipy.
"""

from typing import TYPE_CHECKING

from magi_video.lazy import loader

_HOMES = {
    "PROTOCOLS": "protocols",
    "Protocol": "protocols",
    "Sampling": "generation",
    "evaluate": "generation",
    "score": "scoring",
    "video_features": "scoring",
}

if TYPE_CHECKING:
    from magi_video.evaluation.generation import Sampling, evaluate
    from magi_video.evaluation.protocols import PROTOCOLS, Protocol
    from magi_video.evaluation.scoring import score, video_features

__all__ = ["PROTOCOLS", "Protocol", "Sampling", "evaluate", "score", "video_features"]

__getattr__ = loader(__name__, _HOMES)
