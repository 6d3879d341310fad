"""The parts of the page without a server: turns, controls, names and origins, limits."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from magi_video.errors import MagiError
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recordings.procgen import idle_keys
from magi_video.registry import declared
from magi_video.serving.app import create_app
from magi_video.serving.errors import WITHHELD, public_message
from magi_video.serving.keys import Controls
from magi_video.serving.limits import ServingLimits
from magi_video.serving.security import Guard
from magi_video.serving.server import frame_seconds
from magi_video.serving.videos import VideoDesk
from magi_video.serving.worker import Task, Worker


class Counted(Task):
    """Makes so many frames, each of which is said to have cost so many seconds."""

    def __init__(self, name: str, log: list[str], frames: int, seconds: float = 1.0, error: Exception | None = None):
        self.name, self.log, self.frames, self.seconds, self.error = name, log, frames, seconds, error
        self.closed, self.failed = threading.Event(), ""
        self.waits = False

    def due(self, now: float) -> float:
        return math.inf if self.waits else now

    def step(self) -> bool:
        self.log.append(self.name)
        self.used += self.seconds
        self.frames -= 1
        if self.error is not None:
            raise self.error
        return self.frames > 0

    def fail(self, reason: str) -> None:
        self.failed = reason

    def close(self) -> None:
        self.closed.set()


def run(*tasks: Counted) -> None:
    worker = Worker()
    for task in tasks:
        worker.add(task)
    worker.start()
    assert all(task.closed.wait(30) for task in tasks)
    worker.stop()


def test_turns_are_shared_by_time_not_by_number() -> None:
    log: list[str] = []
    run(Counted("cheap", log, 40, seconds=1), Counted("dear", log, 10, seconds=4))
    half = log[:25]
    assert 18 <= half.count("cheap") <= 22, "the cheap one gets four turns for each of the dear one"


def test_who_comes_later_or_waits_gets_no_more_than_a_fair_share() -> None:
    log: list[str] = []
    early, late = Counted("early", log, 40), Counted("late", log, 20)
    late.waits = True

    def step() -> bool:
        late.waits = len(log) < 20
        return Counted.step(early)

    early.step = step  # type: ignore[method-assign]
    run(early, late)
    after = log[log.index("late") :][:20]
    assert 9 <= after.count("early") <= 11, "nothing was saved up while waiting"


def test_a_failing_task_ends_alone_and_tells_nothing_private() -> None:
    log: list[str] = []
    ours = Counted("ours", log, 3, error=MagiError("too dark"))
    placed = Counted("placed", log, 3, error=MagiError("/root/my secret/model.safetensors: too dark"))
    broken = Counted("broken", log, 3, error=RuntimeError("secret /root/path"))
    well = Counted("well", log, 5)
    run(ours, placed, broken, well)
    assert "secret" not in placed.failed and placed.failed
    assert ours.failed == "too dark" and "secret" not in broken.failed and broken.failed
    assert log.count("well") == 5 and log.count("broken") == 1


@pytest.mark.parametrize("defect", ["due", "fail", "close"])
def test_no_method_of_a_task_ends_the_worker(defect: str) -> None:
    log: list[str] = []
    broken = Counted("broken", log, 3, error=MagiError("too dark") if defect == "fail" else None)
    well, after = Counted("well", log, 5), Counted("after", log, 5)
    raised = threading.Event()

    def fails(*_: object) -> None:
        raised.set()
        raise RuntimeError("secret /root/path")

    setattr(broken, defect, fails)
    worker = Worker()
    worker.add(broken)
    worker.start()
    assert raised.wait(30)
    for task in (well, after):
        worker.add(task)
        assert task.closed.wait(30), "the others go on"
    worker.stop()
    if defect == "due":
        assert broken.failed == WITHHELD
    assert broken.closed.is_set() or defect == "close"


def test_videos_are_counted_while_their_number_changes(pipe: MagiVideoPipeline, tmp_path: Path) -> None:
    async def counted() -> dict[str, int]:
        desk = VideoDesk(pipe, Worker(), ServingLimits(), tmp_path)

        class Meanwhile:
            """A video; another is ordered when its state is read, as may happen in the event loop."""

            @property
            def state(self) -> str:
                desk._videos[f"{len(desk._videos)}"] = Meanwhile()  # type: ignore[assignment]
                return "waiting"

        desk._videos = {"first": Meanwhile(), "second": Meanwhile()}  # type: ignore[dict-item]
        return desk.counts()

    assert asyncio.run(counted()) == {"waiting": 2, "running": 0}


@pytest.mark.parametrize("place", ["/srv/my models/doom", "runs/doom", "~/doom"])
def test_no_place_on_the_server_is_shown(place: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = f"{place}/config.json: no JSON object"
    assert public_message(MagiError(whole)) == WITHHELD
    assert caplog.messages == [f"not shown to visitors: {whole}"]
    caplog.clear()
    assert public_message(MagiError(whole), Path(place), "the model") == "the model: no JSON object"
    assert public_message(MagiError(f"{whole} in {place} or /tmp"), Path(place), "the model") == WITHHELD
    assert whole in caplog.text, "the log has what was meant"
    caplog.clear()
    assert public_message(MagiError("a text is '\\n'; expected some words")) == "a text is '\\n'; expected some words"
    assert not caplog.messages


def test_a_removed_task_is_closed_and_the_worker_ends_with_tasks_left() -> None:
    worker, log = Worker(), []
    gone, left = Counted("gone", log, 10**9), Counted("left", log, 10**9)
    worker.start()
    worker.add(gone)
    worker.add(left)
    worker.remove(gone)
    assert gone.closed.wait(30)
    worker.stop()
    assert left.closed.is_set()


def test_doom_has_its_customary_keys() -> None:
    controls = Controls(["ATTACK", "MOVE_RIGHT", "MOVE_LEFT", "MOVE_FORWARD", "TURN_RIGHT", "TURN_LEFT"])
    keys = {one.name: one.keys for one in controls.controls}
    assert keys["MOVE_FORWARD"] == ("ArrowUp", "KeyW") and keys["ATTACK"] == ("Space",)
    assert keys["TURN_LEFT"][0] == "ArrowLeft" and keys["MOVE_LEFT"] == ("KeyA",)
    action = controls.action({"ATTACK", "TURN_LEFT", "nonsense"})
    assert action is not None and action.tolist() == [1, 0, 0, 0, 0, 1]
    still = controls.action(())
    assert still is not None and not still.any(), "standing still is an action, too"


def test_without_turning_the_arrows_step_aside() -> None:
    keys = {one.name: one.keys for one in Controls(["MOVE_LEFT", "MOVE_RIGHT", "ATTACK"]).controls}
    assert "ArrowLeft" in keys["MOVE_LEFT"] and "ArrowRight" in keys["MOVE_RIGHT"]


def test_atari_actions_exclude_each_other() -> None:
    names = ["NOOP", "FIRE", "UP", "RIGHT", "UPRIGHT", "UPRIGHTFIRE"]
    controls = Controls(names)
    assert {one.name for one in controls.controls} == {"FIRE", "UP", "RIGHT"}
    for held, name in (((), "NOOP"), ({"UP"}, "UP"), ({"UP", "RIGHT"}, "UPRIGHT"), ({"UP", "RIGHT", "FIRE"}, names[5])):
        action = controls.action(held)
        assert action is not None and action.sum() == 1 and names[int(np.argmax(action))] == name


def test_procgen_actions_are_keys_held_together() -> None:
    names = ["LEFT", "LEFT+UP", "NOTHING", "UP", "RIGHT", "RIGHT+UP", "D"]
    controls = Controls(names, idle_keys(["procgen/coinrun"]))
    assert {one.name for one in controls.controls} == {"LEFT", "UP", "RIGHT"}, "D does nothing in CoinRun"
    assert "D" in {one.name for one in Controls(names, idle_keys(["procgen/coinrun", "procgen/ninja"])).controls}
    for held, name in (((), "NOTHING"), ({"UP"}, "UP"), ({"UP", "RIGHT"}, "RIGHT+UP"), ({"LEFT", "UP"}, "LEFT+UP")):
        action = controls.action(held)
        assert action is not None and action.sum() == 1 and names[int(np.argmax(action))] == name


def test_any_other_actions_get_a_key_each() -> None:
    controls = Controls([f"action_{number}" for number in range(12)])
    keys = [key for one in controls.controls for key in one.keys]
    assert len(set(keys)) == 12
    assert controls.action(()) is None, "of actions that exclude each other none is known"
    action = controls.action({"action_3", "action_1"})
    assert action is not None and action.sum() == 1
    buttons = Controls(["button_0", "button_1"]).action({"button_0", "button_1"})
    assert buttons is not None and buttons.tolist() == [1, 1]


@pytest.mark.parametrize(("host", "names", "asked", "fine"), [
    ("127.0.0.1", (), "127.0.0.1:8000", True),
    ("127.0.0.1", (), "localhost:8000", True),
    ("127.0.0.1", (), "[::1]:8000", True),
    ("127.0.0.1", (), "evil.example", False),
    ("127.0.0.1", (), "127.0.0.1.evil.example", False),
    ("127.0.0.1", (), "192.168.0.7:8000", False),
    ("127.0.0.1", (), "", False),
    ("127.0.0.1", (), "[::1", False),
    ("127.0.0.1", ("demo.example",), "demo.example", True),
    ("0.0.0.0", (), "192.168.0.7:8000", True),
    ("0.0.0.0", (), "evil.example:8000", False),
    ("box.example", (), "box.example:8000", True),
])  # fmt: skip
def test_names_that_are_ours(host: str, names: tuple[str, ...], asked: str, fine: bool) -> None:
    guard = Guard(lambda scope, receive, send: None, host, names)  # type: ignore[arg-type, return-value]
    assert guard._is_ours(asked) is fine


def test_limits_are_above_zero() -> None:
    with pytest.raises(MagiError, match="max_frames must be at least 1, got 0"):
        ServingLimits(max_frames=0)
    with pytest.raises(MagiError, match="idle_seconds must be a finite number"):
        ServingLimits(idle_seconds=float("nan"))
    with pytest.raises(MagiError, match="max_share must be at most 1"):
        ServingLimits(max_share=1.5)


def test_a_game_has_its_own_pace(make_pipe: Callable[..., MagiVideoPipeline]) -> None:
    from magi_video.serving.play import Player
    from magi_video.serving.world import Game

    async def paced() -> None:
        pipe = make_pipe()
        player = Player(pipe, Controls(pipe.config.action_names), Worker())
        player.attach(object())
        player.begin(Game({"interval": 2, "speed": "realtime", "num_frames": None}))
        began = time.monotonic()
        for number in range(1, 6):
            player.step()
            player.messages()
            # No frame may be begun before its time, however quickly the ones before it were made.
            assert player.due(began) >= began + number * 2 / pipe.config.frame_rate - 1e-6
        player.pause(True)
        assert player.due(began) == math.inf
        player.pause(False)
        for _ in range(6):
            player.step()
        assert player.due(began) == math.inf, "a connection that does not keep up is waited for"
        player.close()

    asyncio.run(paced())


def test_a_game_begins_at_the_smoothest_pace_that_the_machine_keeps_up_with(
    make_pipe: Callable[..., MagiVideoPipeline],
) -> None:
    pipe = make_pipe()  # 50 frames/s at interval 1
    for seconds, interval in ((None, 3), (0.001, 1), (0.019, 2), (0.05, 3), (1.0, 3)):
        with TestClient(create_app(pipe, "tiny", seconds=seconds), base_url="http://127.0.0.1") as client:
            told = client.get("/api/model").json()
        assert (told["interval"], told["played_interval"]) == (3, interval), seconds
    measured = frame_seconds(pipe)
    assert measured is not None and 0 < measured < 1
    assert frame_seconds(make_pipe(actions=False)) is None
    clip = make_pipe(forcing="joint", transformer={"head": declared("paradigms")["joint"].get("head", "epsilon")})
    frame_seconds(clip)  # whatever it is, the server starts
