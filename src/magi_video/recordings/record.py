"""Recording gameplay: ordinary video files with the actions beside them.

A recording is a folder: `recording.json` (what was recorded), and for each episode `episode_00000.mp4` and
`episode_00000.actions.jsonl`, or `episode_00000.txt` with its caption where the world has that and no actions. Row i of
the actions, `{"frame": i, "action": {"TURN_LEFT": 1}}`, is the action taken
after frame i, the one that leads to frame i+1; only entries that are not 0 are written, and the last row is empty. An
episode is a pure function of (game, seed, episode number, settings), so recording more episodes into the same folder
continues the set, and an interrupted recording is taken up where it stopped; but only by the player that began it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from magi_video.data.actions import write_actions
from magi_video.errors import MagiError
from magi_video.files.artifact import Record
from magi_video.files.atomic import write_bytes
from magi_video.recordings.environments import Game, open_game
from magi_video.recordings.episodes import EPISODES, complete_episodes, episode_name, recording
from magi_video.recordings.policy import Explorer
from magi_video.recordings.walker import player
from magi_video.video.image import fit_frames
from magi_video.video.video import RECORDED, VideoWriter

FACTS = ("frame_rate", "action_names", "player", "world")
"""Of the game and of who played it, in a record; the last only of a game that says more (`Game.facts`). Earlier
versions did not name the player: it was version 1 of it."""


@dataclass(frozen=True)
class RecordingSummary:
    """What a call of `record` did: frames and episodes now in the folder, and how many of the episodes were there
    already."""

    folder: Path
    episodes: int
    kept: int
    frames: int
    action_names: tuple[str, ...]
    frame_rate: float


def record(
    game: str,
    out: str | Path,
    *,
    episodes: int,
    seed: int = 0,
    max_frames: int = 2100,
    height: int = 64,
    width: int = 64,
    frame_skip: int = 1,
    progress: Callable[[int, int, int], None] | None = None,
) -> RecordingSummary:
    """Records episodes of a game played by the explorer.

    Args:
        game: see `open_game`.
        out: folder of the recording; made if needed. A recording of the same settings in it is continued.
        episodes: how many episodes the folder shall hold.
        seed: of the games and of the explorer.
        max_frames: an episode ends by the game's own rules or after so many frames.
        height: of the recorded frames, in pixels; see `fit_frames` for how they are resized.
        width: of the recorded frames, in pixels.
        frame_skip: steps of the game for one recorded frame.
        progress: called after each episode with (episodes done, episodes asked for, frames of this episode).

    Raises:
        MagiError: unknown game, a folder with another recording in it or with one of another player, one in which
            another process records, or one that cannot be written.
    """
    out = Path(out)
    for name, value in {"episodes": episodes, "max_frames": max_frames, "height": height, "width": width}.items():
        if value < 1:
            raise MagiError(f"{name} {value}; expected 1 or more")
    if seed < 0:
        raise MagiError(f"seed {seed}; expected 0 or more")
    settings = {
        "game": game,
        "seed": seed,
        "max_frames": max_frames,
        "height": height,
        "width": width,
        "frame_skip": frame_skip,
    }
    artifact = recording(out, settings)
    saved = artifact.check(settings)
    frames = complete_episodes(out, saved)
    known: Record = {"frame_rate": 0.0, "action_names": []} | {
        name: saved[name] for name in FACTS if saved and name in saved
    }
    kept = sum(1 for episode in range(episodes) if str(episode) in frames)

    def described(_: Record | None = None) -> Record:
        return known | {EPISODES: frames, "magi_version": _version()}

    locked = False
    with ExitStack() as held:
        for episode in range(episodes):
            if str(episode) not in frames:
                # A fresh environment each time: nothing of an earlier episode can leak into a later one.
                opened = open_game(game, frame_skip)
                try:
                    explorer = player(opened.actions, [seed, episode, 1], frame_skip)
                    check_player(out, saved, explorer)
                    names = list(opened.actions.names)
                    known = {"frame_rate": opened.frame_rate, "action_names": names, "player": explorer.identity}
                    known |= opened.facts()
                    if not locked:  # now that the game is known to be there
                        held.enter_context(artifact.making(settings, carried=described))
                        locked = True
                    frames[str(episode)] = _record_episode(opened, explorer, out, episode, settings)
                    frames = dict(sorted(frames.items(), key=lambda item: int(item[0])))
                finally:
                    opened.close()
                artifact.settle(settings, described)
            if progress is not None:
                progress(episode + 1, episodes, frames[str(episode)])
    return RecordingSummary(
        out, len(frames), kept, sum(frames.values()), tuple(known["action_names"]), known["frame_rate"]
    )


def check_player(out: Path, record: Record | None, explorer: Explorer) -> None:
    """Refuse to go on with the recording of another player, or of another version of it.

    Raises:
        MagiError: who played, and who would.
    """
    if record is None:
        return
    before = record.get("player")
    same = explorer.version == 1 if before is None else before == explorer.identity
    if not same:
        began = str(before or f"{explorer.name} 1")[:100]
        raise MagiError(
            f"{out}: its episodes were played by another player ({began}) than new ones would be "
            f"({explorer.identity}); use another --out"
        )


def _record_episode(game: Game, explorer: Explorer, out: Path, episode: int, settings: dict[str, Any]) -> int:
    """Plays one episode; returns its number of frames. Actions and caption are in place before the video is, so a video
    is always complete."""
    seed = settings["seed"]
    game_seed = int(np.random.SeedSequence([seed, episode]).generate_state(1)[0] >> 1)
    names = game.actions.names
    path = out / episode_name(episode)
    rows: list[dict[str, Any]] = []
    with VideoWriter(path, game.frame_rate, **RECORDED) as writer:
        frame: np.ndarray | None = game.reset(game_seed)
        while frame is not None:
            fitted = fit_frames(frame[None], settings["height"], settings["width"])[0]
            writer.write(fitted)
            if writer.num_frames == settings["max_frames"]:
                rows.append({})
                break
            vector = explorer.act(fitted, game.around())
            rows.append({names[i]: _number(vector[i]) for i in np.flatnonzero(vector)})
            frame = game.step(vector)
        rows[-1] = {}  # the last frame leads nowhere
        if names:
            write_actions(path, rows)
        if (caption := game.caption()) is not None:
            write_bytes(path.with_suffix(".txt"), f"{caption}\n".encode())
    return len(rows)


def _number(value: np.float32) -> int | float:
    return int(value) if value == int(value) else round(float(value), 6)


def _version() -> str:
    try:
        return version("magi-video")
    except PackageNotFoundError:
        return "unknown"
