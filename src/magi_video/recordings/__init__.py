"""Recordings: video files with the actions beside them, from games or from other action data sets."""
