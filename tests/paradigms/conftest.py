"""Videos to train on."""

from tests.training.conftest import videos

__all__ = ["videos"]
