"""No cure: the past is the true one (teacher forcing as it is)."""

from magi_video.exposure.base import Cure, register


@register
class TruePast(Cure):
    """Every frame as it is, at level 0."""

    name = "none"
    title = "the past is the true one"
