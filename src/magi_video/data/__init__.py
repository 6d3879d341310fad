"""Reading, recording and caching video."""
