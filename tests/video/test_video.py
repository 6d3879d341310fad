import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magi_video.errors import MagiError
from magi_video.video import seeking as decoding
from magi_video.video.video import VideoWriter, inspect_video, read_frames, read_in_order, write_video
from tests.data.examples import encode, frame_numbers, numbered_frames, write_numbered


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered(tmp_path_factory.mktemp("video") / "long.mp4", 700)


def test_written_frames_come_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    frames = coarse.repeat(8, axis=1).repeat(8, axis=2)
    write_video(tmp_path / "a.mp4", frames, 12.5, crf=4, pixel_format="yuv444p")
    read = read_frames(tmp_path / "a.mp4")
    assert read.shape == frames.shape and read.dtype == np.uint8
    assert np.abs(read.astype(int) - frames).mean() < 4
    info = inspect_video(tmp_path / "a.mp4")
    assert (info.num_frames, info.height, info.width, info.frame_rate) == (5, 32, 48, 12.5)


def test_same_frames_give_same_bytes(tmp_path: Path) -> None:
    smooth = np.cumsum(np.random.default_rng(0).normal(0, 3, (40, 64, 64, 3)).cumsum(axis=1).cumsum(axis=2), axis=0)
    frames = (smooth % 256).astype(np.uint8)
    for pixel_format in ("yuv420p", "yuv444p"):
        found = set()
        for _ in range(4):
            write_video(tmp_path / "a.mp4", frames, 25, pixel_format=pixel_format)
            found.add((tmp_path / "a.mp4").read_bytes())
        assert len(found) == 1


def test_odd_sizes_are_padded_and_small_ones_enlarged_by_whole_numbers(tmp_path: Path) -> None:
    frames = np.full((2, 15, 21, 3), 200, dtype=np.uint8)
    write_video(tmp_path / "odd.mp4", frames, 5)
    assert read_frames(tmp_path / "odd.mp4").shape == (2, 16, 22, 3)
    assert read_frames(tmp_path / "odd.mp4").min() > 190  # padded with the edge, not with black
    write_video(tmp_path / "large.mp4", frames, 5, min_side=40)
    assert read_frames(tmp_path / "large.mp4").shape == (2, 46, 64, 3)  # three times, then even
    write_video(tmp_path / "odd444.mp4", frames, 5, pixel_format="yuv444p")
    assert read_frames(tmp_path / "odd444.mp4").shape == (2, 15, 21, 3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 699), min_size=1, max_size=8))
def test_frames_are_exact_in_any_order(long_video: Path, indices: list[int]) -> None:
    assert frame_numbers(read_frames(long_video, indices)) == indices


def test_a_seek_is_used_and_equals_decoding_through(long_video: Path) -> None:
    wanted = list(range(500, 700, 13))
    sought = decoding.decode_by_seeking(long_video, wanted, None)
    assert sought is not None
    assert np.array_equal(np.stack(sought), np.stack(list(decoding.decode_through(long_video, wanted))))


@pytest.mark.parametrize(
    ("name", "codec", "settings"),
    [
        ("a.avi", "mpeg4", {"gop_size": 12}),
        ("b.avi", "mpeg4", {"gop_size": 12, "max_b_frames": 2}),
        ("c.mkv", "libx264", {"gop_size": 20, "max_b_frames": 3}),
        ("d.mpg", "mpeg2video", {"gop_size": 12, "max_b_frames": 2}),
        ("e.webm", "libvpx-vp9", {"gop_size": 20}),
    ],
)
def test_other_codecs_are_exact_too(tmp_path: Path, name: str, codec: str, settings: dict[str, int]) -> None:
    path = encode(tmp_path / name, numbered_frames(160), codec, **settings)
    count = inspect_video(path).num_frames
    everything = frame_numbers(read_frames(path))
    assert len(everything) == count
    for indices in ([90, 93, 96], [3, 150], [count - 1], [70]):
        expected = [everything[i] for i in indices]
        assert frame_numbers(read_frames(path, indices)) == expected
        assert frame_numbers(read_frames(path, indices, num_frames=count)) == expected


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("b.gif", "gif"), ("c.webm", "libvpx-vp9")])
def test_one_scaler_for_a_file_gives_the_pixels_of_a_scaler_for_each_frame(
    tmp_path: Path, name: str, codec: str
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8).repeat(6, 1).repeat(4, 2)
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path / name)) as container:
        expected = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.array_equal(read_frames(tmp_path / name), expected)


def test_reading_in_order_is_one_pass_over_all_frames(long_video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(decoding, "opened", lambda path, real=decoding.opened: opened.append(path) or real(path))
    chunks = list(read_in_order(long_video, 64))
    assert [len(chunk) for chunk in chunks] == [64] * 10 + [60] and len(opened) == 1
    assert frame_numbers(np.concatenate(chunks)) == list(range(700))
    with pytest.raises(MagiError, match="no such file"):
        next(read_in_order(long_video.with_name("missing.mp4"), 64))


def test_variable_rate_and_missing_timestamps_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "variable.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        gaps = itertools.accumulate([1, 5, 2, 11] * 30)
        for stamp, picture in zip(gaps, numbered_frames(120), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = stamp
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert inspect_video(path).num_frames == 120
    assert frame_numbers(read_frames(path, [60, 61, 119], num_frames=120)) == [60, 61, 119]

    raw = encode(tmp_path / "raw.h264", numbered_frames(120), "libx264", max_b_frames=0)  # a stream without timestamps
    assert inspect_video(raw).num_frames == 120
    assert frame_numbers(read_frames(raw, [110, 60], num_frames=120)) == [110, 60]


def test_unreadable_files_are_told_in_one_line(tmp_path: Path, long_video: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("#EXTM3U\nhttp://127.0.0.1:9/x.ts\n")
    (tmp_path / "cut.mp4").write_bytes(long_video.read_bytes()[:3000])
    for path in [*tmp_path.iterdir(), tmp_path / "missing.mp4", tmp_path]:
        for call in (inspect_video, read_frames):
            with pytest.raises(MagiError) as caught:
                call(path)
            assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_damage_never_makes_the_count_a_lie(tmp_path: Path) -> None:
    whole = write_numbered(tmp_path / "whole.mp4", 120).read_bytes()
    generator = np.random.default_rng(0)
    for trial in range(12):
        broken = bytearray(whole)
        start = int(generator.integers(200, len(broken) - 200))
        broken[start : start + 60] = generator.integers(0, 256, 60, dtype=np.uint8).tobytes()
        path = tmp_path / f"{trial}.mp4"
        path.write_bytes(broken)
        try:
            info = inspect_video(path)
        except MagiError:
            continue
        assert len(read_frames(path)) == info.num_frames
        last = read_frames(path, [info.num_frames - 1], num_frames=info.num_frames)
        assert last.shape == (1, info.height, info.width, 3)


def test_indices_outside_the_video_are_refused(long_video: Path) -> None:
    for indices in ([700], [0, 5000], [-1], []):
        with pytest.raises(MagiError):
            read_frames(long_video, indices)


def test_oversized_frames_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbered(tmp_path / "a.mp4", 3)
    monkeypatch.setattr(decoding, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(MagiError, match="48 x 32 pixels"):
        inspect_video(path)


def test_an_interrupted_file_does_not_appear(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, 10) as writer:
        writer.write(numbered_frames(1)[0])
        raise KeyboardInterrupt
    with pytest.raises(MagiError, match="no frame"), VideoWriter(path, 10):
        pass
    assert list(path.parent.iterdir()) == []


def test_wrong_frames_and_unwritable_places_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    frames = numbered_frames(2)
    for path, given_frames, rate in [
        (tmp_path / "a.mp4", frames.astype(np.float32), 10),
        (tmp_path / "a.mp4", frames[..., :2], 10),
        (tmp_path / "a.mp4", frames[:0], 10),
        (tmp_path / "a.mp4", frames, 0),
        (tmp_path / "a.mp4", frames, float("nan")),
        (tmp_path / "file" / "a.mp4", frames, 10),
    ]:
        with pytest.raises(MagiError):
            write_video(path, given_frames, rate)
    with pytest.raises(MagiError, match="like the first"), VideoWriter(tmp_path / "b.mp4", 10) as writer:
        writer.write(frames[0])
        writer.write(frames[0, :16])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


KR_KB = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114)}
"""Of the matrices that colour tags name: BT.709, BT.601 of 625 and of 525 lines."""


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
@pytest.mark.parametrize("height", [48, 736])
def test_the_colour_tags_of_written_videos_are_true(pixel_format: str, height: int, tmp_path: Path) -> None:
    colours = np.array(list(itertools.product((0, 128, 255), repeat=3)), np.uint8)
    frames = colours.repeat(4, axis=0)[None, None].repeat(height, 1).repeat(2, 0)
    write_video(tmp_path / "a.mp4", frames, 10, crf=1, pixel_format=pixel_format)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.color_primaries, frame.color_trc, frame.color_range) == (1, 13, 1), "sRGB in the limited range"
    planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in frame.planes]
    step = 2 if pixel_format == "yuv420p" else 1
    at = np.arange(2, len(colours) * 4, 4)  # a column in each colour, away from its left edge
    y, u, v = (planes[i][height // 4, at // (1 if i == 0 else step)].astype(float) for i in range(3))
    red, blue = KR_KB[frame.colorspace]
    luma, cb, cr = (y - 16) / 219, (u - 128) / 224, (v - 128) / 224
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    g = (luma - red * r - blue * b) / (1 - red - blue)
    assert np.abs(np.stack([r, g, b], -1) * 255 - colours).max() < 5
    assert np.abs(read_frames(tmp_path / "a.mp4")[0, height // 4, at].astype(int) - colours).max() < 5
