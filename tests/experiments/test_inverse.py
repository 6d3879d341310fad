"""Worlds that are played: keys read from pixels, and models that are given the keys."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from magi_video.experiments.inverse import Keys, score_keys, train_inverse
from magi_video.experiments.measure import Measures
from magi_video.experiments.publish import publish
from magi_video.experiments.run import write_result
from magi_video.experiments.runs import Workplace
from magi_video.experiments.table1 import table1
from magi_video.experiments.worlds import World
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.training.display import Silent
from tests.experiments.conftest import toy_detectors
from tests.recordings import procgen_stand_in

NAMES = ("LEFT", "NOTHING", "RIGHT+UP", "RIGHT")


def walks(count: int, seed: int) -> tuple[np.ndarray, Keys]:
    """Clips of a square that goes where the keys say, and is brighter while a jump is asked for."""
    random = np.random.default_rng(seed)
    held_NT = random.integers(len(NAMES), size=(count, 8))
    clips = np.zeros((count, 8, 32, 32, 3), np.uint8)
    for clip, held_T in zip(clips, held_NT, strict=True):
        place = int(random.integers(8, 16))
        for t, held in enumerate(held_T):
            place += (0 if t == 0 else 1) * (("RIGHT" in NAMES[held]) - ("LEFT" in NAMES[held]))
            clip[t, 12:20, place : place + 8] = 255 if "UP" in NAMES[held] else 150
    return clips, Keys.read(np.eye(len(NAMES), dtype=np.float32)[held_NT], NAMES)


def test_keys_are_read_from_names() -> None:
    keys = Keys.read(np.eye(4, dtype=np.float32), NAMES)
    assert keys.side.tolist() == [0, 1, 2, 2] and keys.up.tolist() == [0, 0, 1, 0]


def test_the_network_reads_the_keys_and_is_not_led_by_what_was_asked() -> None:
    network = train_inverse(*walks(96, 0), 80)
    clips, keys = walks(32, 1)
    true = score_keys(network, clips, keys, 2)
    assert true["side"] > 0.9 and true["up"] > 0.9
    assert len(true["per_frame"]["side"]) == 6 and len(true["per_clip"]["up"]) == 32
    still = score_keys(network, np.repeat(clips[:, :1], 8, axis=1), keys, 2)
    others = score_keys(network, clips[::-1].copy(), keys, 2)
    assert still["side"] < 0.6 and others["side"] < 0.6
    assert score_keys(train_inverse(*walks(96, 0), 80), clips, keys, 2) == true, "seeded"


class Slow(procgen_stand_in.Level):
    speed = 1


def test_a_world_that_is_played(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    procgen_stand_in.install(monkeypatch, Slow)
    preset = replace(world.preset, model=replace(world.preset.model, actions=True))
    played = replace(
        world, name="coinrun", preset=preset, game="procgen/coinrun", actions=True, oracle="keys", oracle_steps=5,
        num_clips=4, episodes=8, fid=False,
    )  # fmt: skip
    given: list[np.ndarray] = []
    call = MagiVideoPipeline.__call__

    def spy(pipe: MagiVideoPipeline, *args: object, **kwargs: object) -> object:
        given.append(kwargs["actions"])  # type: ignore[arg-type]
        return call(pipe, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(MagiVideoPipeline, "__call__", spy)
    measures = Measures(Workplace(played, tmp_path / "coinrun", None, Silent()), 2, toy_detectors())
    figures = table1(measures, [0], ["complete"], budget="equal-steps")
    context = measures.sets[1]
    assert context.actions is not None and context.actions.shape == (10, 4, len(context.names))
    assert np.array_equal(given[0], context.actions), "the model is given what was held, in its own order"
    moved = np.diff(np.argmax(context.clips[:, :, 8, :, 0] > 200, axis=-1), axis=1)  # 16 pixels: a quarter of the place
    held = Keys.read(context.actions.transpose(1, 0, 2), context.names).side[:, 1:]
    assert moved.any() and (moved[held == 1] == 0).all() and (moved[held == 2] >= 0).all(), "the clip shows its keys"
    floor, row = figures["references"]["floor"]["oracle"], figures["runs"]["complete"][0]["points"]["3"]["oracle"]
    assert set(floor) == set(row) == {"side", "up", "per_frame", "per_clip"} and 0 <= row["side"] <= 1
    kept = (tmp_path / "coinrun" / "inverse_dynamics.safetensors").stat().st_mtime_ns
    again = Measures(measures.workplace, 2, toy_detectors())
    assert again.oracle("twice", lambda: context.clips)["oracle"] == floor
    assert (tmp_path / "coinrun" / "inverse_dynamics.safetensors").stat().st_mtime_ns == kept
    write_result(tmp_path / "results" / "table1-coinrun.json", played, figures)
    report = publish(tmp_path)
    assert "| side | up |" in (report / "table1_coinrun.md").read_text()
    row = json.loads((report / "reproduction.json").read_text())["table1"]["coinrun"]["rows"]["complete"]
    assert set(row["oracle"]) == {"side", "up"} and list(row["beats_copy_last"]) == ["FVD"]
