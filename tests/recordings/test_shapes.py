"""The world of shapes as a recording: captions that tell the truth, and a sixth of the scenes held out."""

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from magi_video.data.captions import read_captions
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.recordings.environments import open_game
from magi_video.recordings.record import record
from magi_video.recordings.shapes import (
    COLOURS,
    FRAMES,
    HELD_OUT,
    LONGEST,
    MOTIONS,
    SHAPES,
    SIDE,
    SIZES,
    Scene,
    covered,
    draw,
    read_caption,
    scenes,
    write_caption,
)
from magi_video.video.video import read_frames


def test_a_recording_has_captions_and_no_held_out_scene(tmp_path: Path) -> None:
    summary = record("shapes", tmp_path / "shown", episodes=20, max_frames=2)
    assert summary.action_names == () and summary.frames == 40
    record("shapes/held-out", tmp_path / "held", episodes=5, max_frames=2)
    shown, held = (VideoFolder(tmp_path / name) for name in ("shown", "held"))
    assert shown.action_names == []
    texts = [read_captions(folder).texts for folder in (shown, held)]
    seen = [[read_caption(text) for text in of if text is not None] for of in texts]
    assert [len(of) for of in seen] == [20, 5]
    assert not set(seen[0]) & set(HELD_OUT) and set(seen[1]) <= set(HELD_OUT)
    world = json.loads((tmp_path / "shown" / "recording.json").read_text())["world"]
    assert world["held_out"] == [" ".join(scene) for scene in HELD_OUT]
    # the same command again keeps what is there; without its caption an episode is recorded anew
    before = {file.name: file.read_bytes() for file in (tmp_path / "held").glob("episode_*")}
    (tmp_path / "held" / "episode_00003.txt").unlink()
    assert record("shapes/held-out", tmp_path / "held", episodes=5, max_frames=2).kept == 4
    assert {file.name: file.read_bytes() for file in (tmp_path / "held").glob("episode_*")} == before


def test_every_name_is_held_out_for_a_sixth_and_seen_for_the_rest() -> None:
    every = scenes(held_out=False) + scenes(held_out=True)
    assert len(set(every)) == len(COLOURS) * len(SHAPES) * len(MOTIONS) == 6 * len(HELD_OUT)
    for field in Scene._fields:
        held, whole = (Counter(getattr(scene, field) for scene in of) for of in (HELD_OUT, every))
        assert all(whole[name] == 6 * held[name] for name in whole)


def test_captions_say_what_is_drawn() -> None:
    random = np.random.default_rng(0)
    written = {write_caption(scene, random): scene for scene in scenes(held_out=True) * 20}
    assert len(written) > 100 and all(read_caption(caption) == scene for caption, scene in written.items())
    assert max(len(re.findall(r"\w+", caption)) for caption in written) == LONGEST
    for caption in ("a red square", "a red and blue square moves left", "a star moves left", ""):
        with pytest.raises(MagiError, match="does not name one colour"):
            read_caption(caption)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_the_area_and_the_centre_that_they_are_drawn_with(shape: str) -> None:
    for size in SIZES:
        cover_HW = covered(shape, size, np.array([30.0, 33.5]))
        assert cover_HW.sum() == pytest.approx(size**2, rel=0.03)
        places = np.arange(SIDE) + 0.5
        centre = [(cover_HW.sum(1 - axis) * places).sum() / cover_HW.sum() for axis in (0, 1)]
        assert centre == pytest.approx([30.0, 33.5], abs=0.2)
        across = covered(shape, size, np.array([30.0, 33.5 + SIDE / 2]))
        assert np.allclose(np.roll(cover_HW, SIDE // 2, axis=1), across)  # the picture's sides are one


def test_a_video_is_of_its_seed(tmp_path: Path) -> None:
    scene = scenes(held_out=False)[7]
    assert np.array_equal(draw(scene, np.random.default_rng(1)), draw(scene, np.random.default_rng(1)))
    game = open_game("Shapes", frame_skip=2)
    frames = [game.reset(5)]
    while (frame := game.step(np.zeros(0, np.float32))) is not None:
        frames.append(frame)
    again = open_game("shapes")
    assert len(frames) == FRAMES // 2 and np.array_equal(again.reset(5), frames[0])
    assert again.caption() == game.caption() and game.frame_rate == 5.0
    again.step(np.zeros(0, np.float32))
    assert np.array_equal(again.step(np.zeros(0, np.float32)), frames[1])
    record("shapes", tmp_path, episodes=1)
    stored = read_frames(tmp_path / "episode_00000.mp4", range(FRAMES))
    assert stored.shape == (FRAMES, SIDE, SIDE, 3)


def test_other_worlds_of_shapes_are_refused() -> None:
    with pytest.raises(MagiError, match="expected shapes or shapes/held-out"):
        open_game("shapes/unseen")


def test_a_game_that_is_called_like_the_world_is_gymnasiums() -> None:
    gymnasium = pytest.importorskip("gymnasium", reason="lacks gymnasium: pip install -e '.[games]'")
    gymnasium.register("Shapes-v0", lambda **_: 1 / 0)
    try:
        with pytest.raises(MagiError, match="Shapes-v0 cannot be started: division by zero"):
            open_game("Shapes-v0")
    finally:
        del gymnasium.registry["Shapes-v0"]
