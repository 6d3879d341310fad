"""The short synthetic videos and the tiny recipe of the training tests."""

from tests.training.conftest import recipe, videos

__all__ = ["recipe", "videos"]
