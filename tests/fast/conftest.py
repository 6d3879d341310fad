"""What trainings need."""

from tests.training.conftest import recipe, videos

__all__ = ["recipe", "videos"]
