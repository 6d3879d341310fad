"""Teacher-forcing paradigms, one file each, chosen by one configuration key.

To add one (diffusion forcing, bidirectional with a fixed context, …): write a file with a `Forcing` that builds the
sequence, its temporal mask and, where it differs, its loss; say what the cache holds; add the class to `FORCINGS`.
"""

from magi_video.errors import MagiError
from magi_video.paradigms.base import Clip, Forcing
from magi_video.paradigms.complete import CompleteTeacherForcing
from magi_video.paradigms.masked import MaskedTeacherForcing
from magi_video.paradigms.masking import MaskRatio
from magi_video.paradigms.noise import NoiseInjection

FORCINGS: dict[str, type[Forcing]] = {cls.name: cls for cls in (CompleteTeacherForcing, MaskedTeacherForcing)}


def find_forcing(name: str) -> type[Forcing]:
    """The paradigm of that name, or a `MagiError` that lists the names."""
    if name not in FORCINGS:
        raise MagiError(f"unknown forcing {name!r}: choose from {', '.join(FORCINGS)}")
    return FORCINGS[name]


__all__ = [
    "FORCINGS",
    "Clip",
    "CompleteTeacherForcing",
    "Forcing",
    "MaskRatio",
    "MaskedTeacherForcing",
    "NoiseInjection",
    "find_forcing",
]
