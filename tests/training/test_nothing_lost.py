"""What a kill, a full disk, a damaged file or a dead helper may cost: some time, and not one bit of the result."""

import dataclasses
import faulthandler
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch.utils.data import get_worker_info

from magi_video import MagiVideoPipeline
from magi_video.data.clips import PixelReader
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.files.artifact import Artifact
from magi_video.files.checkpoints import Checkpoint, latest_checkpoint, save_checkpoint
from magi_video.recipe import Preset
from magi_video.training import loaders
from magi_video.training.run import train
from tests.training.conftest import tiny_recipe

Recipe = Callable[..., Preset]


def with_codec(preset: Preset) -> Preset:
    """A recipe with everything that takes time: a codec to train, latents to encode."""
    small = dataclasses.replace(
        preset.small_vae,
        width=4, steps=6, batch_size=2, warmup_steps=1, checkpoint_every=2,
        encoder_blocks=(0, 0), decoder_blocks=(0, 0),
    )  # fmt: skip
    return dataclasses.replace(
        preset,
        codec=dataclasses.replace(preset.codec, codec="small_vae"),
        small_vae=small,
        model=dataclasses.replace(preset.model, hidden=16, mlp=32, head_width=16, head_depth=1, depth=1, heads=2),
        train=dataclasses.replace(preset.train, tracker="none", batch_size=2),
    )


def four_steps(recipe: Recipe, **settings: Any) -> Preset:
    """A recipe of four steps, saved after two of them."""
    return recipe(**{"steps": 4, "checkpoint_every": 2} | settings)


@pytest.fixture(scope="module")
def half(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the first two of four steps; to be copied."""
    run = tmp_path_factory.mktemp("half") / "run"
    train(four_steps(tiny_recipe, steps=2), videos, run)
    return run


@pytest.fixture(scope="module")
def whole(videos: Path, half: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The bits of a run of four steps that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(half, run)
    train(four_steps(tiny_recipe), videos, run)
    return bits(run)


def in_a_process(call: Callable[[], None]) -> int:
    """The exit status of a fork that makes the call: 0 if it returned."""
    child = os.fork()
    if child == 0:
        try:
            faulthandler.dump_traceback_later(60, exit=True)
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def count_changes(folder: Path, act: Callable[[int], None]) -> None:
    """From now on, call `act` with a running number before every change of a file or folder below `folder`."""
    changes = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        writes = writes or event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.truncate")
        paths = [str(one) for one in arguments if isinstance(one, str | os.PathLike)]
        if writes and any(path.startswith(str(folder)) for path in paths):
            changes += 1
            act(changes)

    sys.addaudithook(hook)


def bits(run: Path) -> dict[str, dict[str, bytes]]:
    """Every tensor of a finished run's weights, averages and optimiser's state; their order in a file is free."""
    files = sorted(file for file in run.rglob("*.safetensors") if "shards" not in file.parts)
    return {
        str(file.relative_to(run)): {name: value.tobytes() for name, value in load_file(file).items()} for file in files
    }


def test_a_kill_before_any_change_of_a_file_costs_nothing(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    preset = with_codec(recipe(steps=4, checkpoint_every=2))
    whole = tmp_path / "whole"
    counted = tmp_path / "count"

    def run_counting() -> None:
        count_changes(whole, lambda number: counted.write_text(str(number)))
        train(preset, videos, whole)

    assert in_a_process(run_counting) == 0
    changes = int(counted.read_text())
    assert changes > 50
    expected = bits(whole)
    run = tmp_path / "killed"

    def run_until(last: int) -> None:
        count_changes(run, lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == last else None)
        train(preset, videos, run)

    # Each start gets a little further than the one before it: kills early, in the middle and late in every stage.
    kills = 0
    for last in np.random.default_rng(0).integers(1, changes // 2, size=8).tolist():
        status = in_a_process(lambda last=last: run_until(last))
        assert os.WIFEXITED(status) is False or os.WEXITSTATUS(status) == 0
        kills += os.WIFSIGNALED(status)
    assert kills >= 3
    assert in_a_process(lambda: train(preset, videos, run) and None) == 0
    assert bits(run) == expected
    assert not [path for path in run.rglob("*") if "part" in path.name or "unfinished" in path.name]


# --- checkpoints ------------------------------------------------------------------------------------------------------


def make_two(root: Path) -> Checkpoint:
    """Checkpoints of steps 1 and 2; returns the second."""
    for step in (1, 2):
        tensors = {name: {"a": torch.full((5, 3), float(step)), "b": torch.arange(4)} for name in ("model", "ema")}
        newest = save_checkpoint(root, step, tensors, {"seed": step, "rates": [0.1, 1e-9], "preset": {"name": "tiny"}})
    return newest


def read_all(checkpoint: Checkpoint) -> float:
    """Every tensor; the value that says of which step they are."""
    firsts = [float(value.flatten()[0]) for name in ("model", "ema") for _, value in checkpoint.tensors(name)]
    return firsts[0]


def test_a_checkpoint_cut_or_changed_anywhere_is_passed_over(tmp_path: Path) -> None:
    folder = make_two(tmp_path).folder
    random = np.random.default_rng(0)
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        cuts = [b"", *(data[:at] for at in random.integers(1, len(data), 12)), data[:-1], data + b"\0"]
        flips = []
        for bit in random.integers(0, 8 * len(data), 60).tolist():
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            flips.append(bytes(flipped))
        for damaged in [*cuts, *flips]:
            file.write_bytes(damaged)
            found = latest_checkpoint(tmp_path)
            assert found is not None and found.step == 1 and found.state["seed"] == 1 and read_all(found) == 1.0
        file.unlink()
        assert latest_checkpoint(tmp_path).step == 1  # type: ignore[union-attr]
        file.write_bytes(data)
        assert latest_checkpoint(tmp_path).step == 2  # type: ignore[union-attr]


def test_nothing_is_begun_anew_over_damaged_checkpoints(videos: Path, recipe: Recipe, tmp_path: Path) -> None:
    train(recipe(steps=2, checkpoint_every=2), videos, tmp_path)
    state = tmp_path / "checkpoints" / "step_00000002" / "state.json"
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(MagiError, match="none of its checkpoints is as it was written"):
        train(recipe(steps=2, checkpoint_every=2), videos, tmp_path)
    assert state.exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing beyond it fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_is_full_at_any_byte_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    newest = make_two(tmp_path)
    largest = max(file.stat().st_size for file in newest.folder.iterdir())
    for size in range(0, largest, largest // 17):
        with files_of_at_most(size), pytest.raises(MagiError, match="cannot save the checkpoint"):
            save_checkpoint(tmp_path, 3, {"model": {"a": torch.zeros(5, 3), "b": torch.arange(4)}}, {"x": "y" * 500})
        found = latest_checkpoint(tmp_path)
        assert found is not None and found.step == 2 and read_all(found) == 2.0
        assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step_00000001", "step_00000002"]


def test_a_full_disk_stops_training_in_a_line_and_it_goes_on_later(
    videos: Path, recipe: Recipe, tmp_path: Path
) -> None:
    preset = with_codec(recipe(steps=4, checkpoint_every=2))
    for size in (0, 300, 3_000, 20_000, 60_000):
        with files_of_at_most(size), pytest.raises(MagiError) as caught:
            train(preset, videos, tmp_path / "run")
        assert "\n" not in str(caught.value)
    train(preset, videos, tmp_path / "run")
    train(preset, videos, tmp_path / "whole")
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")


@pytest.mark.skipif(os.geteuid() != 0, reason="lacks root, who can become another user")
def test_a_folder_that_may_not_be_written_is_told_in_a_line(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o555)
    folder = tmp_path  # the way to it must be open to others: pytest's own folders are not
    while folder != Path(tempfile.gettempdir()):
        folder.chmod(0o755)
        folder = folder.parent
    os.seteuid(65534)
    try:
        claim = Artifact(tmp_path / "run" / "run.json", "a run").making({"seed": 0}, Processes())
        with pytest.raises(MagiError, match=r"cannot be written \(Permission denied\)"), claim:
            pass
        with pytest.raises(MagiError, match=r"cannot save the checkpoint .*Permission denied"):
            save_checkpoint(tmp_path / "run" / "checkpoints", 1, {"model": {"a": torch.zeros(1)}}, {})
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["run.json", "videos.json", "model_index.json", "codec/config.json", "log.jsonl"])
def test_a_run_with_a_damaged_file_goes_on_or_says_which(
    name: str, videos: Path, recipe: Recipe, tmp_path: Path, half: Path, whole: dict[str, dict[str, bytes]]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(half, run)
    data = (run / name).read_bytes()
    for damaged in (b"", data[: len(data) // 2], b"\0" * len(data), b"[]"):
        (run / name).write_bytes(damaged)
        try:
            train(four_steps(recipe), videos, run)
        except MagiError as error:
            assert "\n" not in str(error) and name in str(error)
            (run / name).write_bytes(data)
    train(four_steps(recipe), videos, run)
    assert bits(run) == whole
    MagiVideoPipeline.from_pretrained(run)


# --- processes that load data -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        ("die", r"loading data failed at step \d: .*; the same command continues"),
        ("hang", r"loading data failed at step \d: .*timed out"),
        ("fail", "^a.mp4: unreadable$"),
    ],
)
def test_a_process_that_loads_data_fails(
    happens: str,
    told: str,
    videos: Path,
    recipe: Recipe,
    tmp_path: Path,
    whole: dict[str, dict[str, bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, reads = PixelReader.read, []

    def read(reader: PixelReader, *arguments: object) -> torch.Tensor:
        reads.append(arguments)
        if get_worker_info() is not None and len(reads) > 10:
            if happens == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if happens == "hang":
                signal.pause()
            raise MagiError("a.mp4: unreadable")
        return real(reader, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(PixelReader, "read", read)
    monkeypatch.setattr(loaders, "LOADER_SECONDS", 3)
    preset = four_steps(recipe, workers=1)
    with pytest.raises(MagiError, match=told) as caught:
        train(preset, videos, tmp_path / "run")
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    train(preset, videos, tmp_path / "run")
    assert bits(tmp_path / "run") == whole
    assert json.loads((tmp_path / "run" / "run.json").read_text())["preset"]["train"]["workers"] == 1


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError("reset")])
def test_the_end_of_a_process_is_one_line_wherever_it_is_met(error: Exception) -> None:
    line = r"^loading data failed at step 3: \w.*; the same command continues$"
    with pytest.raises(MagiError, match=line), loaders.loading_errors(3):
        raise error
    with pytest.raises(RuntimeError, match="another"), loaders.loading_errors(3):
        raise RuntimeError("another")
