"""magi-video."""
