"""A player's run: going on from any of its frames, and taking it home as a recording that trains a model."""

import io
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.data.actions import read_actions
from magi_video.errors import MagiError
from magi_video.fast.threads import Pace
from magi_video.paradigms import PARADIGMS
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.registry import declared
from magi_video.serving import service as service_module
from magi_video.serving.limits import ServingLimits
from magi_video.serving.run import Lead, RunFrame, find_lead, run_length
from magi_video.serving.world import Game, Keys, Message, World
from magi_video.video.video import inspect_video, read_frames
from tests.serving.playing import begin, hear
from tests.serving.site import ACTIONS, SIDE, Site, decoded, picture
from tests.serving.test_play import UNPLAYED

STILL, LEFT, FIRE = (np.array(one, np.float32) for one in ([0, 0, 0], [1, 0, 0], [0, 0, 1]))
PLAYED = [name for name in PARADIGMS if name not in UNPLAYED]


class Played:
    """A world that is stepped by hand, with keys said in advance."""

    def __init__(self, pipe: MagiVideoPipeline, keys: Sequence[np.ndarray], most: int = 100) -> None:
        self.keys, self.told = list(keys), list[Message]()
        self.world = World(
            pipe, tuple(ACTIONS), self.next_keys, lambda *parts: self.told.extend(parts), lambda: None, Pace(), most,
            find_lead(pipe),
        )  # fmt: skip
        generator = torch.Generator().manual_seed(3)
        self.world.enter(Game({"image": picture(1), "interval": 1, "sampling": None, "generator": generator}))

    def next_keys(self) -> Keys:
        return Keys(self.keys[self.world.index])

    def play(self, until: int) -> list[RunFrame]:
        while self.world.index <= until:
            self.world.step()
        return self.world.run.until(until)


@pytest.mark.parametrize("name", PLAYED)
def test_the_same_keys_lead_on_from_a_frame_as_they_did_before(
    name: str, make_pipe: Callable[..., MagiVideoPipeline], threads_left: Callable[..., list[threading.Thread]]
) -> None:
    row = declared("paradigms")[name]
    transformer = {"head": row["head"]} if "head" in row else {}
    pipe = make_pipe(conditions=row.get("conditions", {}), transformer=transformer, forcing=name)
    keys = [(STILL, LEFT, FIRE)[number * number % 3] for number in range(23)]
    played = Played(pipe, keys)
    before = [one.latents_BCHW for one in played.play(22)]
    played.world.branch(14)
    past = played.world.run.until(14)
    with pytest.raises(MagiError, match=r"frame 15 is not kept: the run goes back 15 frames"):
        played.world.run.until(15)
    again = [one.latents_BCHW for one in played.play(22)]
    assert torch.allclose(torch.stack(again), torch.stack(before), atol=1e-3), "the same noise, the same keys"

    drawing = torch.Generator()
    drawing.set_state(past[14].draws)
    recomputed = pipe.stream(
        latents=torch.stack(before[:15], dim=1), generator=[drawing], actions=keys, interval=1, output_type="latent",
        use_cache=False,
    )  # fmt: skip
    slowly = [next(recomputed) for _ in range(23)]
    assert torch.allclose(torch.stack(again), torch.stack(slowly), atol=1e-3), "nothing of what was dropped is seen"

    played.world.branch(14)
    played.keys = [FIRE if not one[2] else LEFT for one in keys]
    other = [one.latents_BCHW for one in played.play(22)]
    assert all(torch.equal(*pair) for pair in zip(other[:15], before[:15], strict=True))
    assert not torch.allclose(torch.stack(other[15:]), torch.stack(before[15:]), atol=1e-2), "other keys lead elsewhere"
    played.world.settle()  # the last frame is shown, too
    played.world.leave()
    told = [one for one in played.told if isinstance(one, dict)]
    numbers = [one["index"] for one in told if one["type"] == "frame"]
    assert numbers == [*range(23), *range(15, 23), *range(15, 23)], "what is read again is not shown again"
    assert [one for one in told if one["type"] not in ("frame", "begun")] == 2 * [{"type": "branched", "index": 14}]
    assert not threads_left("magi-beside")


def test_a_run_goes_on_with_the_frames_that_its_model_keeps_in_sight(
    make_pipe: Callable[..., MagiVideoPipeline],
) -> None:
    keeps = {"sink_frames": 1, "strided_frames": 1, "past_stride": 7}
    pipe = make_pipe(sampling={"mask_steps": 2, "denoise_steps": 3} | keeps)
    keys = [(STILL, LEFT, FIRE)[number * number % 3] for number in range(60)]
    played = Played(pipe, keys, most=50)
    before = torch.stack([one.latents_BCHW for one in played.play(59)])
    played.world.branch(52)  # frame 0 has been dropped from the run, and is still in sight
    again = torch.stack([one.latents_BCHW for one in played.play(59)])
    assert torch.allclose(again, before[-len(again) :], atol=1e-3)
    played.world._lead = Lead(latest=20)
    played.world.branch(52)
    other = torch.stack([one.latents_BCHW for one in played.play(59)])
    assert not torch.allclose(other[-7:], before[-7:], atol=1e-3), "without them it goes on elsewhere"
    played.world.leave()


def test_what_is_left_out_before_a_run_goes_on_are_whole_strides() -> None:
    lead = Lead(latest=20, sink=2, stride=7)
    assert lead.numbers(100, 0) == [0, 1, *range(86, 101)] and (86 - 2) % 7 == 0
    assert lead.numbers(100, 90) == [0, 1, *range(93, 101)] and lead.numbers(18, 0) == list(range(19))
    assert lead.numbers(0, 0) == [0] and Lead(20).numbers(100, 0) == list(range(81, 101))


def test_a_run_is_bounded(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    pipe = make_pipe()
    played = Played(pipe, [STILL] * 40, most=8)
    assert len(played.play(30)) == 8
    for gone in (22, 31, -1):
        with pytest.raises(MagiError, match=f"frame {gone} is not kept"):
            played.world.branch(gone)
    played.world.branch(23)
    assert len(played.play(26)) == 4, "as many as are left, and those that came since"
    played.world.leave()
    assert run_length(pipe, ServingLimits()) == 2100
    frame = 3 * SIDE * SIDE + 4 * 3 * SIDE * SIDE + 5056
    few = run_length(pipe, ServingLimits(max_kept_mb=1, max_players=2))
    assert few == 500_000 // frame, "memory is shared by all players"


def test_no_run_is_kept_where_a_step_makes_several_frames(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    row = declared("paradigms")["diffusion"]
    transformer = {"head": row["head"]} if "head" in row else {}
    together = {"schedule": "pyramid", "horizon": 2}
    for options, sampling, kept in (({}, {}, 2100), (together, {}, 0), ({}, together, 0)):
        pipe = make_pipe(
            conditions=row.get("conditions", {}), transformer=transformer, forcing="diffusion",
            forcing_options=options, sampling=sampling,
        )  # fmt: skip
        assert run_length(pipe, ServingLimits()) == kept, (options, sampling)
        assert pipe.most_step_frames(None) == (1 if kept else 2)


def test_a_run_keeps_the_rate_of_its_own_world(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    played = Played(make_pipe(), [STILL] * 9)
    played.play(2)
    first = played.world.run
    played.world.enter(Game({"image": picture(1), "interval": 2, "sampling": None}))
    assert (first.rate, played.world.run.rate) == (50, 25)
    played.world.leave()
    assert played.world.run.rate == 25, "it can be saved after the world is left"


def test_a_world_that_has_ended_is_taken_up_again(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    played = Played(make_pipe(transformer={"temporal_position": "interpolate"}), [LEFT] * 9)
    before = [one.latents_BCHW for one in played.play(4)]
    played.world.step()
    assert played.told[-1] == {"type": "ended", "frames": 5}
    played.world.branch(2)
    again = [one.latents_BCHW for one in played.play(4)]
    assert torch.allclose(torch.stack(again), torch.stack(before), atol=1e-3)
    played.world.step()
    assert played.told[-1] == {"type": "ended", "frames": 5}
    played.world.leave()


def test_a_player_goes_back(site: Site) -> None:
    with site.connect("/api/play") as line:
        hear(line, "hello")
        line.send_json({"type": "branch", "index": 0})  # there is no world yet
        begin(line)
        seen = {}
        while len(seen) < 12:
            told = hear(line, "frame")
            seen[told["index"]] = decoded(told["jpeg"])
        for wrong in (-1, 10**6, 2**80, None, True, "3", [3], 2.0):
            line.send_json({"type": "branch", "index": wrong})
            while (told := line.receive_json())["type"] != "error":
                if told["type"] == "frame":
                    line.receive_bytes()
            assert "\n" not in told["error"] and ("is not kept" in told["error"] or "expected" in told["error"])
        line.send_json({"type": "branch", "index": 5})
        assert hear(line, "branched")["index"] == 5
        first = hear(line, "frame")
        assert first["index"] == 6 and np.abs(decoded(first["jpeg"]) - seen[6]).mean() < 3
        assert [hear(line, "frame")["index"] for _ in range(3)] == [7, 8, 9]


def saved(site: Site, session: str, folder: Path) -> Path:
    answer = site.client.get(f"/api/play/{session}/run.zip")
    assert answer.status_code == 200 and "attachment" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert sorted(archive.namelist()) == [
            "run/episode_00000.actions.jsonl", "run/episode_00000.mp4", "run/recording.json",
        ]  # fmt: skip
        archive.extractall(folder)
    return folder / "run"


def test_a_played_run_trains_a_model(site: Site, tmp_path: Path) -> None:
    with site.connect("/api/play") as line:
        session = hear(line, "hello")["session"]
        begin(line, interval=2)
        line.send_json({"type": "keys", "held": ["FIRE", "LEFT"], "keys": 1})
        shown = {}
        while len(shown) < 24:
            told = hear(line, "frame")
            shown[told["index"]] = told
        run = saved(site, session, tmp_path)
    video, shift = run / "episode_00000.mp4", min(shown)
    facts, frames = inspect_video(video), read_frames(video)
    assert facts.frame_rate == 25 and len(frames) >= max(shown)
    for index, told in shown.items():
        if index < len(frames):
            assert np.abs(frames[index].astype(int) - decoded(told["jpeg"])).mean() < 6, index
    track = read_actions(run / "episode_00000.actions.jsonl", len(frames))
    assert track.names == tuple(ACTIONS)
    for index, told in shown.items():
        if shift <= index < len(frames):
            held = [1, 0, 1] if told["keys"] == 1 else [0, 0, 0]
            assert track.values[index - 1].tolist() == held, "a row leads to the frame after it"
    options = ["--steps", "2", "--hidden", "32", "--height", "16", "--width", "16", "--actions"]
    assert main(["train", "tiny", "--data", str(run), "--out", str(tmp_path / "model"), *options]) == 0


@pytest.mark.parametrize(
    ("asked", "code"), [("bytes", 400), ("bytes=9999999-", 416), ("bytes=0-9", 206), ("bytes=0-9,20-29", 206)]
)
def test_a_saved_run_leaves_no_file_whatever_range_is_asked_for(site: Site, asked: str, code: int) -> None:
    with site.connect("/api/play") as line:
        session = hear(line, "hello")["session"]
        begin(line)
        while hear(line, "frame")["index"] < 3:
            pass
        answer = site.client.get(f"/api/play/{session}/run.zip", headers={"Range": asked})
        assert answer.status_code == code
        assert not list(site.service.folder.iterdir())


def test_saving_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for token in ("x", "x" * 500, "..%2f..%2fetc", "%00"):
        answer = site.client.get(f"/api/play/{token}/run.zip")
        assert answer.status_code in (400, 404) and "\n" not in answer.text
    with site.connect("/api/play") as line:
        session = hear(line, "hello")["session"]
        answer = site.client.get(f"/api/play/{session}/run.zip")
        assert answer.status_code == 400 and answer.json() == {"error": "there are no frames to save yet"}
        begin(line)
        while hear(line, "frame")["index"] < 3:
            pass
        may_write, write = threading.Event(), service_module.write_run

        def slow(*asked: Any) -> None:
            assert may_write.wait(20)
            write(*asked)

        monkeypatch.setattr(service_module, "write_run", slow)
        answers: list[int] = []
        first = threading.Thread(
            target=lambda: answers.append(site.client.get(f"/api/play/{session}/run.zip").status_code)
        )
        first.start()
        player = site.service.players.find(session)
        while not player.saving:
            first.join(0.01)
        second = site.client.get(f"/api/play/{session}/run.zip")
        assert second.status_code == 503 and second.json() == {"error": "this run is being saved already"}
        may_write.set()
        first.join(20)
        assert answers == [200] and not list(site.service.folder.glob("run-*")), "nothing is left"
