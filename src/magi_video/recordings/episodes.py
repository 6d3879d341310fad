"""The folder of a recording: its record, and which of its episodes are complete."""

from pathlib import Path
from typing import Any

from magi_video.data.actions import RECORDING_FILE, actions_path
from magi_video.errors import MagiError
from magi_video.files.artifact import Artifact, Record

EPISODES = "episodes"
"""Name in the record: episode → its number of frames."""


def recording(out: Path, settings: dict[str, Any]) -> Artifact:
    """A folder of episodes made under these settings."""

    def lasting(record: Record) -> Record:
        return {name: record.get(name) for name in settings}

    return Artifact(out / RECORDING_FILE, "episodes", lasting, made=lambda: any(out.glob("episode_*.mp4")))


def episode_name(episode: int) -> str:
    """File name of an episode's video."""
    return f"episode_{episode:05d}.mp4"


def complete_episodes(out: Path, record: Record | None) -> dict[str, int]:
    """Frames of each recorded episode whose video and actions are there (of a world without actions: its caption);
    none without a record.

    Raises:
        MagiError: the record is not that of a recording.
    """
    try:
        frames = {int(episode): int(count) for episode, count in (record or {EPISODES: {}})[EPISODES].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MagiError(f"{out / RECORDING_FILE}: not the description of a recording ({error!r})") from None
    paths = {episode: out / episode_name(episode) for episode in sorted(frames)}
    captioned = record is not None and record.get("action_names") == []

    def beside(path: Path) -> Path:
        return path.with_suffix(".txt") if captioned else actions_path(path)

    return {str(n): frames[n] for n, path in paths.items() if path.is_file() and beside(path).is_file()}
