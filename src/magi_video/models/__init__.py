"""The network alone: embeddings, layers, transformer, heads, frame cache. Imports nothing of ours above it.

Names are loaded on first use: `architecture.py` describes a model without importing torch.
"""

from typing import TYPE_CHECKING

from magi_video.lazy import loader

if TYPE_CHECKING:
    from magi_video.models.architecture import ACTION, LABEL, NOISE_LEVEL, TEXT, Architecture, ConditionSpec
    from magi_video.models.cache import FrameCache
    from magi_video.models.diffusion import EpsilonHead
    from magi_video.models.flow import FlowHead
    from magi_video.models.head import DiffusionHead
    from magi_video.models.sequence import MASKED, OBSERVATION, FrameSequence, causal_mask
    from magi_video.models.transformer import MagiTransformer

__all__ = [
    "ACTION",
    "LABEL",
    "MASKED",
    "NOISE_LEVEL",
    "OBSERVATION",
    "TEXT",
    "Architecture",
    "ConditionSpec",
    "DiffusionHead",
    "EpsilonHead",
    "FlowHead",
    "FrameCache",
    "FrameSequence",
    "MagiTransformer",
    "causal_mask",
]

_HOMES = {
    "ACTION": "architecture",
    "LABEL": "architecture",
    "MASKED": "sequence",
    "NOISE_LEVEL": "architecture",
    "OBSERVATION": "sequence",
    "TEXT": "architecture",
    "Architecture": "architecture",
    "ConditionSpec": "architecture",
    "DiffusionHead": "head",
    "EpsilonHead": "diffusion",
    "FlowHead": "flow",
    "FrameCache": "cache",
    "FrameSequence": "sequence",
    "MagiTransformer": "transformer",
    "causal_mask": "sequence",
}

__getattr__ = loader(__name__, _HOMES)
