import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from magi_video.data import scan
from magi_video.data.folder import VideoFolder
from magi_video.data.identity import DataIdentity
from magi_video.errors import MagiError
from magi_video.latents.table import CachedVideos, VideoTable
from magi_video.serving.reading import decode
from magi_video.video import geometry
from magi_video.video import seeking as decoding
from magi_video.video.geometry import NAMES, find_orientation
from magi_video.video.image import fit_frames
from magi_video.video.video import inspect_video, is_shown_as_stored, read_frames, read_in_order, write_video
from tests.data.examples import encode, numbered_frames, set_matrix, write_numbered

ORIENTATIONS = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)] + [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


def smooth_frames(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 9, (count, height, width, 3)).cumsum(axis=1).cumsum(axis=2)
    return (128 + noise).clip(60, 200).astype(np.uint8)


def placed(frame: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """The frame by the definition of the matrix, pixel by pixel."""
    points = {(a * x + c * y, b * x + d * y): frame[y, x] for y in range(frame.shape[0]) for x in range(frame.shape[1])}
    columns, rows = (sorted({point[axis] for point in points}) for axis in (0, 1))
    return np.array([[points[column, row] for column in columns] for row in rows])


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_frames_are_turned_and_mirrored_as_the_file_says(matrix: tuple[int, int, int, int], tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", smooth_frames(60, 6, 8), 25)
    stored = read_frames(tmp_path / "a.mp4")
    path = set_matrix(tmp_path / "a.mp4", *matrix)
    expected = np.stack([placed(frame, *matrix) for frame in stored])
    info = inspect_video(path)
    assert (info.num_frames, info.height, info.width) == expected.shape[:3]
    assert bool(info.shown) == (matrix != (1, 0, 0, 1)) and is_shown_as_stored(path) == (not info.shown)
    assert np.array_equal(read_frames(path), expected)
    assert np.array_equal(np.concatenate(list(read_in_order(path, 7))), expected)
    sought = decoding.decode_by_seeking(path, [50, 55], None)
    assert sought is not None and np.array_equal(np.stack(sought), expected[[50, 55]])
    assert VideoFolder(tmp_path).read(0, [3]).shape == (1, *expected.shape[1:])


def test_the_words_fit_what_is_done() -> None:
    frame = np.arange(6).reshape(2, 3, 1)
    for flags, words in NAMES.items():
        shown = geometry.Geometry((2, 3), (2, 3), *flags).turn(frame)
        told = frame[:, ::-1] if "mirrored" in words else frame
        turns = {"180 degrees": 2, "90 degrees clockwise": -1, "90 degrees anticlockwise": 1}
        turned = next((turns[turn] for turn in turns if words.endswith(f"turned {turn}")), 0)
        assert np.array_equal(shown, np.rot90(told, turned)), words


def test_any_matrix_is_the_nearest_way_to_hold_a_picture() -> None:
    def oriented(a: float, b: float, c: float, d: float) -> tuple[bool, bool, bool]:
        return find_orientation(struct.pack("=9i", *(round(2**16 * v) for v in (a, b, 0, c, d, 0, 0, 0)), 2**30))

    exact = {angle: oriented(*_rotation(angle)) for angle in (0, 90, 180, 270)}
    for angle in range(0, 360, 5):
        nearest = min(exact, key=lambda way: min((way - angle) % 360, (angle - way) % 360))
        if angle % 90 != 45:
            assert oriented(*_rotation(angle)) == exact[nearest]
            a, b, c, d = _rotation(angle)
            assert oriented(3 * a, 3 * b, 0.2 * c, 0.2 * d) in NAMES
    assert oriented(0, 0, 0, 0) == exact[0] == find_orientation(b"") == find_orientation(bytes(35))


def _rotation(degrees: float) -> tuple[float, float, float, float]:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return cosine, sine, -sine, cosine


@pytest.mark.parametrize(("pixel", "width"), [(Fraction(2), 96), (Fraction(8, 9), 43), (Fraction(1, 3), 16)])
def test_pixels_are_made_square_by_the_filter_of_fit_frames(pixel: Fraction, width: int, tmp_path: Path) -> None:
    frames = smooth_frames(3)
    settings = {"codec": "libx264", "pixel_format": "yuv444p", "options": {"crf": "1"}}
    square = read_frames(encode(tmp_path / "square.mp4", frames, **settings))
    path = encode(tmp_path / "a.mp4", frames, pixel=pixel, **settings)
    read = read_frames(path)
    assert read.shape == (3, 32, width, 3) and inspect_video(path).width == width
    stored = torch.from_numpy(square).permute(0, 3, 1, 2).float()
    expected = F.interpolate(stored, size=(32, width), mode="bilinear", antialias=True, align_corners=False)
    difference = np.abs(expected.permute(0, 2, 3, 1).numpy() - read)
    assert difference.mean() < 1 and difference.max() < 8


def test_a_stretched_and_turned_video_is_stretched_first(tmp_path: Path) -> None:
    path = set_matrix(encode(tmp_path / "a.mp4", smooth_frames(2), pixel=Fraction(2)), 0, 1, -1, 0)
    info = inspect_video(path)
    assert (info.height, info.width) == (96, 32) and read_frames(path).shape == (2, 96, 32, 3)
    assert info.shown == "48 x 32 stretched to 96 x 32, turned 90 degrees clockwise"


def test_a_circle_is_a_circle_for_the_model_and_the_visitor(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64]
    disc = np.where((x - 16) ** 2 / 64 + (y - 32) ** 2 / 256 < 1, 255, 0).astype(np.uint8)[:, :32, None]
    path = encode(tmp_path / "a.mp4", disc.repeat(3, 2)[None].repeat(3, 0), pixel=Fraction(2))
    for frames in (fit_frames(read_frames(path), 64, 64), decode(path, 64, 64, 3)):
        white = frames[0, :, :, 0] > 127
        assert abs(int(white.any(0).sum()) - int(white.any(1).sum())) <= 1


@pytest.mark.parametrize(("wide", "high"), [(1, 1_000_000), (1_000_000, 1), (0, 0), (0, 5), (2**31, 2**31 + 1)])
def test_hostile_pixels_stay_within_the_limits(wide: int, high: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", smooth_frames(2), pixel=Fraction(7, 5))
    content = bytearray(path.read_bytes())
    at = content.index(b"pasp") + 4
    content[at : at + 8] = struct.pack(">2I", wide, high)
    path.write_bytes(content)
    try:
        info = inspect_video(path)
    except MagiError as error:
        assert "\n" not in str(error) and "expected a width" in str(error)
        with pytest.raises(MagiError, match="expected a width"):
            read_frames(path)
    else:
        assert info.height == 32 and info.width in (48, 67)  # square, or as the codec's own header has it
        assert read_frames(path).shape == (2, info.height, info.width, 3)


def test_a_shape_that_makes_frames_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mp4", smooth_frames(2), pixel=Fraction(2))
    monkeypatch.setattr(geometry, "MAX_PIXELS", 32 * 95)
    with pytest.raises(MagiError, match="shown 2 times as wide as high"):
        inspect_video(path)


def write_streams(path: Path, *streams: tuple[tuple[int, int], int]) -> Path:
    """A file of several streams, each a size and a disposition, of as many frames as the stream's number and two."""
    with av.open(str(path), "w") as container:
        made = []
        for (height, width), disposition in streams:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.disposition = disposition
            made.append(stream)
        for number, stream in enumerate(made):
            for frame in numbered_frames(number + 2, stream.height, stream.width):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    return path


SMALL, LARGE = (16, 16), (32, 48)
DEFAULT = av.stream.Disposition.default.value


@pytest.mark.parametrize(("streams", "taken"), [
    ([(SMALL, 0), (LARGE, DEFAULT)], 1),
    ([(LARGE, 0), (SMALL, DEFAULT)], 1),
    ([(SMALL, 0), (LARGE, 0)], 1),
    ([(SMALL, DEFAULT), (LARGE, DEFAULT)], 1),
    ([(LARGE, 0), (LARGE, 0)], 0),
])  # fmt: skip
def test_the_stream_is_read_that_players_take(
    streams: list[tuple[tuple[int, int], int]], taken: int, tmp_path: Path
) -> None:
    path = write_streams(tmp_path / "a.mkv", *streams)
    info = inspect_video(path)
    assert (info.num_frames, (info.height, info.width)) == (taken + 2, streams[taken][0])
    assert read_frames(path).shape == (info.num_frames, info.height, info.width, 3)
    assert info.shown == (f"stream {taken}" if taken else "")


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mp4", (SMALL, 0), (LARGE, 0))
    with av.open(str(path)) as container:
        cover, moving = container.streams.video

        class Attached:
            disposition = av.stream.Disposition.attached_pic | av.stream.Disposition.default
            codec_context = moving.codec_context

        assert decoding.pick_stream(path, [Attached, cover]) is cover
        with pytest.raises(MagiError, match="no video stream in it but a cover picture"):
            decoding.pick_stream(path, [Attached])
        with pytest.raises(MagiError, match=r"no video stream in it$"):
            decoding.pick_stream(path, [])


def test_scans_of_before_are_kept_where_frames_are_shown_as_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, index = tmp_path / "root", tmp_path / "videos.json"
    for name in ("a.mp4", "b.mp4"):
        write_numbered(root / name, 4)
    set_matrix(root / "b.mp4", 0, 1, -1, 0)
    (root / "c.mp4").write_bytes(b"broken")
    expected = VideoFolder(root, index=index)
    content = json.loads(index.read_text())
    assert content["version"] == 3
    for entry in content["videos"].values():
        entry |= {"height": 32, "width": 48} if "height" in entry else {}
        for name in ("shown", "content"):
            entry.pop(name, None)
    entries = {key.rpartition("|")[0]: entry for key, entry in content["videos"].items()}
    index.write_text(json.dumps({"version": 1, "videos": entries}))
    looked: list[str] = []
    real = scan.Inspector.inspect
    monkeypatch.setattr(scan.Inspector, "inspect", lambda self, path: looked.append(path.name) or real(self, path))
    for _ in range(2):
        again = VideoFolder(root, index=index)
        assert (again.videos, again.skipped) == (expected.videos, expected.skipped)
        assert [(v.height, v.width) for v in again.videos] == [(32, 48), (48, 32)]
        assert looked == ["b.mp4", "c.mp4"], "once"


def test_a_cache_knows_how_its_videos_are_shown(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_numbered(tmp_path / name, 4)
    before = DataIdentity.of(VideoFolder(tmp_path))
    assert VideoTable.of(VideoFolder(tmp_path)).shown == []
    set_matrix(tmp_path / "b.mp4", -1, 0, 0, -1)  # neither sizes nor lengths tell
    (tmp_path / "table").write_bytes(VideoTable.of(VideoFolder(tmp_path)).to_bytes())
    table = VideoTable.read(tmp_path / "table")
    assert table.shown == ["", "turned 180 degrees"]
    now = DataIdentity.of(CachedVideos(table, tmp_path))
    told = "1 video changed (changed: b.mp4 shown as {}, not as {})"
    assert before.difference(now) == told.format("turned 180 degrees", "stored")
    assert now.difference(before) == told.format("stored", "turned 180 degrees")
    assert now.difference(DataIdentity.of(VideoFolder(tmp_path))) is None


def test_files_of_all_containers_are_looked_at(tmp_path: Path) -> None:
    codecs = {"a.3gp": "mpeg4", "b.vob": "mpeg2video", "c.mts": "libx264", "d.m2ts": "libx264", "e.ogv": "libtheora",
              "f.wmv": "mpeg4", "g.y4m": "rawvideo", "h.f4v": "libx264", "i.m2v": "mpeg2video"}  # fmt: skip
    written = []
    for name, codec in codecs.items():
        if codec in av.codec.codecs_available:
            try:
                encode(tmp_path / name, numbered_frames(6), codec)
            except (ValueError, av.FFmpegError):  # this build of FFmpeg cannot write it
                (tmp_path / name).unlink(missing_ok=True)
                continue
            written.append(name)
    assert len(written) > 5
    for name in ("x.jpg", "y.JPG", "z.mxf", "w", "captions.txt"):
        (tmp_path / name).write_bytes(b"")
    folder = VideoFolder(tmp_path)
    assert [video.path.name for video in folder.videos] == written and folder.skipped == []
    assert folder.summary().endswith(
        "videos; 4 files are no videos by their names (2 .jpg, 1 .mxf, 1 without a suffix)"
    ) or folder.summary().endswith("(2 .jpg, 1 without a suffix, 1 .mxf)")


def test_links_are_followed_where_that_is_asked_for(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "root"
    write_numbered(outside / "deep" / "a.mp4", 4)
    write_numbered(root / "own.mp4", 4)
    (root / "b.mp4").symlink_to(outside / "deep" / "a.mp4")
    (root / "classes").symlink_to(outside)
    (outside / "back").symlink_to(root)
    (outside / "deep" / "again").symlink_to(outside / "deep")
    assert [video.path.name for video in VideoFolder(root).videos] == ["own.mp4"]
    folder = VideoFolder(root, follow_links=True)
    names = [video.path.relative_to(root).as_posix() for video in folder.videos]
    assert names == ["b.mp4", "own.mp4", "classes/deep/a.mp4"] and folder.class_names == ["classes"]
    assert {one.path.name: one.reason for one in folder.skipped} == dict.fromkeys(
        ("back", "again"), "folder that is there already"
    )
    assert all(len(folder.read(number, [3])) == 1 for number in range(3))
