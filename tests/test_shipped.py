"""The models inside the package: small, complete, and still their worlds after a while."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.cli import demo, main
from magi_video.fast.engine_choice import GRAPHS
from magi_video.fast.job import Job
from magi_video.fast.onnx_engine import OnnxEngine
from magi_video.fast.onnx_graph import GraphFiles
from magi_video.files.weights import SHIPPED
from magi_video.paradigms import make_paradigm
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.sampling.sampling import SPEEDS
from magi_video.video.image import read_image

WORLDS = ["doom", "atari", "coinrun"]


@pytest.fixture(scope="module")
def doom() -> MagiVideoPipeline:
    return MagiVideoPipeline.from_pretrained("doom")


@pytest.fixture(scope="module")
def atari() -> MagiVideoPipeline:
    return MagiVideoPipeline.from_pretrained("atari")


@pytest.fixture(scope="module")
def coinrun() -> MagiVideoPipeline:
    return MagiVideoPipeline.from_pretrained("coinrun")


@pytest.fixture(params=WORLDS)
def shipped(request: pytest.FixtureRequest) -> MagiVideoPipeline:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", WORLDS)
def test_they_are_small_and_hold_nothing_to_unpickle(name: str) -> None:
    files = [path for path in (SHIPPED / name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20 * 2**20
    assert {path.suffix for path in files} == {".json", ".safetensors", ".png", ".md", ".graph"}


def test_their_graphs_are_there_and_give_pytorchs_result(shipped: MagiVideoPipeline) -> None:
    """Each is compared with PyTorch when it is loaded. One that a change has made stale is made anew by
    `python benchmarks/engines.py doom atari coinrun --frames 1 --json FILE`, after the old ones are removed."""
    pytest.importorskip("onnxruntime")
    assert shipped.folder is not None
    engine = OnnxEngine(files=GraphFiles([shipped.folder / GRAPHS]))
    paradigm = make_paradigm(shipped.config.forcing)
    jobs = [Job(paradigm, shipped.transformer, shipped.codec, shipped.resolve(speed)) for speed in SPEEDS]
    assert [engine.prepare(job, build=False) for job in jobs] == [None] * len(SPEEDS)
    assert len(engine._sessions) == len(list((shipped.folder / GRAPHS).iterdir())) == 8
    assert all(session is not None for _, session in engine._sessions.values())


def test_they_say_how_they_were_made(shipped: MagiVideoPipeline) -> None:
    training = shipped.config.training
    assert shipped.config.forcing == "complete" and training["steps"] == training["preset"]["train"]["steps"]
    assert training["data"]["frames"] > 80_000
    assert {"ATTACK", "FIRE", "NOTHING"} & set(shipped.config.action_names)
    assert shipped.transformer.config.temporal_position == "rope"


@pytest.mark.parametrize(("name", "decibels"), [("doom", 26), ("atari", 38), ("coinrun", 27)])
def test_their_codecs_show_the_first_frames(name: str, decibels: float, request: pytest.FixtureRequest) -> None:
    pipe: MagiVideoPipeline = request.getfixturevalue(name)
    for path in [SHIPPED / name / "first_frame.png", *(SHIPPED / name / "first_frames").iterdir()]:
        first = read_image(path)
        assert first.shape[:2] == (pipe.config.height, pipe.config.width)
        shown = pipe(image=first, num_frames=1).frames[0, 0]
        assert -10 * np.log10(np.square(shown - first / 255).mean()) > decibels, path.name


def follow(
    pipe: MagiVideoPipeline, first: np.ndarray, names: list[str], num_frames: int, interval: int = 1
) -> np.ndarray:
    """Videos from one frame and one seed, each under an action that is held."""
    return pipe(
        image=[first] * len(names), num_frames=num_frames, interval=interval, mask_steps=4, denoise_steps=12,
        actions=np.stack([np.stack([pipe.action(name) for name in names])] * num_frames),
        generator=[torch.Generator().manual_seed(0) for _ in names],
    ).frames  # fmt: skip


def test_frames_stay_frames_and_the_picture_follows_the_controls(doom: MagiVideoPipeline) -> None:
    first = read_image(SHIPPED / "doom" / "first_frame.png")
    left, right = frames = follow(doom, first, ["TURN_LEFT", "TURN_RIGHT"], 24, interval=2)
    for video in frames:
        late = video[-8:]
        assert 0.05 < late.std(axis=(1, 2)).mean() < 0.35, "neither a flat colour nor noise"
        assert np.abs(late.mean() - video[0].mean()) < 0.2
        assert np.abs(np.diff(video, axis=0)).mean() > 0.005, "it moves"
    assert np.abs(left[-1] - right[-1]).mean() > 0.02


def white_boxer(frames_THWC: np.ndarray) -> np.ndarray:
    """Where the white boxer's middle is, `[T, 2]`: right, down; in pixels."""
    white_THW = frames_THWC.min(axis=-1) > 0.62
    white_THW[:, :14] = white_THW[:, 68:] = False  # above and below the ring stand the points
    middle = [np.argwhere(white_HW).mean(axis=0)[::-1] for white_HW in white_THW]
    return np.stack(middle)


def test_the_boxer_goes_where_he_is_told(atari: MagiVideoPipeline) -> None:
    first = read_image(SHIPPED / "atari" / "first_frame.png")
    names = ["RIGHT", "LEFT", "UP", "DOWN"]
    went = {}
    for name, frames in zip(names, follow(atari, first, names, 9), strict=True):
        start, end = white_boxer(frames[[0, -1]])
        went[name] = end - start
    assert went["RIGHT"][0] > went["LEFT"][0] + 2 and went["DOWN"][1] > went["UP"][1] + 2


def scrolled(video_THWC: np.ndarray, most: int = 12) -> int:
    """By how many columns the level moved to the left between the ends of a video, as far as `most`."""
    grey_THW = video_THWC.mean(-1)
    start, end = grey_THW[0], grey_THW[-1]
    width = start.shape[1]

    def likeness(shift: int) -> float:
        left, right = max(shift, 0), width + min(shift, 0)
        return float(np.corrcoef(start[:, left:right].ravel(), end[:, left - shift : right - shift].ravel())[0, 1])

    return max(range(-most, most + 1), key=likeness)


def test_the_level_scrolls_as_the_player_runs(coinrun: MagiVideoPipeline) -> None:
    first = read_image(SHIPPED / "coinrun" / "first_frames" / "crates.png")
    right, nothing, left = follow(coinrun, first, ["RIGHT", "NOTHING", "LEFT"], 7)
    assert scrolled(right) > 1 + scrolled(nothing) and scrolled(left) < scrolled(nothing) - 1


def test_worlds_do_not_share_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[str, Path] = {}
    monkeypatch.setattr(demo, "generate", lambda world, out, *_: written.update({world: out}))
    monkeypatch.setattr(demo.shutil, "copyfile", lambda *_: None)
    monkeypatch.setattr("magi_video.files.atomic.replacing", lambda path: nullcontext())
    for world in WORLDS:
        assert main(["demo", world]) == 0
    assert written == {"doom": Path("demo"), "atari": Path("demo/atari"), "coinrun": Path("demo/coinrun")}


@pytest.mark.parametrize("world", [[], ["atari"], ["coinrun"]])
def test_demo_command(world: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", *world, "--out", str(tmp_path), "--frames", "5"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "sample_000.mp4",
        "contact.png",
        "generate.json",
        "first_frame.png",
    }
    assert str(tmp_path / "sample_000.mp4") in capsys.readouterr().out
    assert len(json.loads((tmp_path / "generate.json").read_text())["seconds_per_frame"]) == 5
    assert read_image(tmp_path / "first_frame.png").shape == ((80, 64, 3) if world == ["atari"] else (64, 64, 3))
