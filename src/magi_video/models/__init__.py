"""The network alone: embeddings, layers, transformer, heads, frame cache. Imports nothing of ours above it."""

from magi_video.models.cache import FrameCache
from magi_video.models.conditions import ACTION, LABEL, NOISE_LEVEL, TEXT, ConditionSpec
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
    "ConditionSpec",
    "DiffusionHead",
    "EpsilonHead",
    "FlowHead",
    "FrameCache",
    "FrameSequence",
    "MagiTransformer",
    "causal_mask",
]
