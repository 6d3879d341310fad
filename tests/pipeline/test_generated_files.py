"""Videos generated into a folder: files grow frame by frame, the same as if written at once, whole or not at all."""

import tracemalloc
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from magi_video.errors import MagiError
from magi_video.fast.engine import Engine
from magi_video.fast.probes import Choice
from magi_video.files.atomic import write_array
from magi_video.pipeline import generate as command
from magi_video.pipeline.generate import generate
from magi_video.pipeline.options import GenerateOptions
from magi_video.sampling.sampling import Sampling
from magi_video.video.image import contact_sheet, write_image
from magi_video.video.video import read_frames, write_video

HEIGHT, WIDTH = 40, 48


class StubPipeline:
    """Streams noise that moves; fails before frame `last` if given an error."""

    config = SimpleNamespace(
        height=HEIGHT, width=WIDTH, frame_rate=12.0, mask_steps=1, denoise_steps=1, action_names=[]
    )
    transformer = SimpleNamespace(check_interval=lambda interval: None)
    device = "cpu"
    engine = Engine()

    def __init__(self, error: BaseException | None = None, last: int = 5) -> None:
        self.error, self.last = error, last
        generator = np.random.default_rng(0)
        self.pictures = generator.random((2, HEIGHT, WIDTH, 3), dtype=np.float32)

    def to(self, device: str) -> "StubPipeline":
        return self

    def resolve(self, sampling: Sampling) -> Sampling:
        return Sampling(None, 1, 1)

    def most_mask_steps(self, num_frames: int) -> int:
        return 1

    def stream(self, num_frames: int, num_videos: int, **_settings: object) -> Iterator[np.ndarray]:
        for index in range(num_frames):
            if self.error is not None and index == self.last:
                raise self.error
            yield np.roll(self.pictures[:num_videos], index, axis=2)

    def decode_stream(self, latents: Iterator[np.ndarray], num_frames: int) -> Iterator[np.ndarray]:
        return islice(latents, num_frames)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubPipeline:
    pipeline = StubPipeline()
    made = SimpleNamespace(pipe=pipeline, choice=Choice("float32", "as asked"), threads=1)
    monkeypatch.setattr(command, "make_ready", lambda *_, **__: made)
    return pipeline


@pytest.mark.parametrize("count", [1, 7, 30, 31, 75])
def test_the_files_are_those_of_whole_videos(stub: StubPipeline, tmp_path: Path, count: int) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    report = generate("stub", out, GenerateOptions(frames=count, interval=2, num=2, save_arrays=True))
    videos = np.stack([(frame * 255).round().astype(np.uint8) for frame in stub.stream(count, 2)], axis=1)
    for index, video in enumerate(videos):
        write_video(whole / f"sample_00{index}.mp4", video, 6.0, min_side=256)
        write_array(whole / f"sample_00{index}.npy", video)
    write_image(whole / "contact.png", contact_sheet(list(videos), columns=10, max_frames=30))
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()} | {"generate.json"}
    for path in whole.iterdir():
        if path.suffix == ".mp4":  # the encoder's threads share bits out as they come
            ours, theirs = (read_frames(file).astype(int) for file in (out / path.name, path))
            assert ours.shape == theirs.shape and np.abs(ours - theirs).mean() < 3, path.name
        else:
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    assert report["files"] == ["sample_000.mp4", "sample_001.mp4"] and len(report["seconds_per_frame"]) == count


def test_memory_does_not_grow_with_the_frames(
    stub: StubPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "VIEW_SIDE", 0)

    def peak(frames: int) -> int:
        tracemalloc.start()
        try:
            generate("stub", tmp_path, GenerateOptions(frames=frames, save_arrays=True))
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(30)  # what is imported and remembered once
    # What grows is numbers: seconds of each frame, samples of the progress bar.
    assert peak(400) < peak(50) + 40 * HEIGHT * WIDTH * 3, "350 frames more, in the memory of less than 40"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MagiError("no"), RuntimeError("bug"), OSError(28, "full")])
@pytest.mark.parametrize("last", [0, 5])
def test_after_an_error_nothing_is_left(stub: StubPipeline, tmp_path: Path, error: BaseException, last: int) -> None:
    stub.error, stub.last = error, last
    out, options = tmp_path / "out", GenerateOptions(frames=9, num=2, save_arrays=True)
    with pytest.raises((type(error), MagiError)):
        generate("stub", out, options)
    assert not list(out.iterdir())
    # And what an earlier run has left stays as it is.
    stub.error = None
    generate("stub", out, options)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    stub.error = error
    with pytest.raises((type(error), MagiError)):
        generate("stub", out, options)
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_folder_that_cannot_be_made(stub: StubPipeline, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MagiError, match=r"file/out: results cannot be written there"):
        generate("stub", tmp_path / "file" / "out", GenerateOptions())
