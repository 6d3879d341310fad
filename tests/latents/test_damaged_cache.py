"""Latent caches that are damaged or hostile: what is wrong is found, named in one line, and made again."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.latents.cache import Index, LatentCache
from magi_video.latents.grid import ClipGrid
from magi_video.latents.shards import file_sha256
from magi_video.latents.table import VideoTable
from tests.codecs.codec_examples import Causal4x
from tests.latents.caches import HalvingCodec, build, contents, order, shard


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("damage", "message"), [
    (truncate, r"00000\.safetensors: \d+ bytes; expected \d+; give the cache's magi encode command again"),
    (Path.unlink, r"00000\.safetensors: No such file"),
    (lambda path: path.write_bytes(b""), r"00000\.safetensors: 0 bytes"),
])  # fmt: skip
def test_a_shard_that_lacks_something_is_named_and_encoded_again(
    folder: VideoFolder, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    before = contents(directory)
    damage(shard(directory, 0))
    with pytest.raises(MagiError, match=message):
        LatentCache(directory)
    assert build(folder, directory).shards == [0] and contents(directory) == before


def test_a_changed_bit_is_found_and_mended(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    before = contents(directory)
    flip(shard(directory, 1))
    assert build(folder, directory).shards == [], "sizes alone do not show it"
    found = build(folder, directory, verify=True)
    assert found.damaged == found.shards == [1] and contents(directory) == before


def test_hostile_shards_are_refused_in_one_line(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    path = shard(directory, 0)
    whole = path.read_bytes()
    for before, after, message in (
        (b"F16", b"I16", r"int16 .*; expected float16"),
        (b"8, 12", b"12, 8", r"12, 8\]; expected float16"),
        (b"latents", b"lament!", "unreadable latents"),
        (b"[0, ", b"[2, ", "unreadable latents"),
        (b"{", b"[", "unreadable latents"),
        (whole[-2:], np.float16("nan").tobytes(), "not finite"),
        (whole[-2:], np.float16("inf").tobytes(), "not finite"),
    ):
        place = whole.rindex(before) if before == whole[-2:] else whole.index(before)
        path.write_bytes(whole[:place] + after + whole[place + len(before) :])
        with pytest.raises(MagiError, match=message) as error:
            LatentCache(directory).read(0, [folder.videos[0].num_frames - 1])
        assert "00000.safetensors" in str(error.value) and "\n" not in str(error.value)


def rewrite(directory: Path, **changes: Any) -> None:
    index = json.loads((directory / "index.json").read_text())
    (directory / "index.json").write_text(json.dumps(index | changes))


def test_hostile_indices_are_refused_in_one_line(folder: VideoFolder, tmp_path: Path) -> None:
    build(folder, tmp_path / "cache")
    whole = json.loads((tmp_path / "cache" / "index.json").read_text())
    for changes, message in (
        ({"version": 2}, "version 2 of the latent cache; expected 1"),
        ({"version": None}, "version None"),
        ({"row": [3, 8]}, "sizes that no latents have"),
        ({"row": [3, 8, -12]}, "sizes that no latents have"),
        ({"row": [3, 2**40, 12]}, "sizes that no latents have"),
        ({"height": "16"}, "height must be a whole number, got '16'"),
        ({"intervals": [2, 1], "clip_length": 5, "stride": 5, "row": [2, 3, 8, 12]}, "intervals increasing"),
        ({"stride": 5}, "expected positive numbers"),
        ({"shards": []}, "unfinished"),
        ({"shards": whole["shards"][:-1]}, "lists other shards"),
        ({"shards": [{"path": "../../etc/passwd"}]}, "unknown setting 'path'"),
        ({"shard_bytes": 1}, "lists other shards"),
        ({"table_sha256": "0"}, "damaged"),
    ):
        (tmp_path / "cache" / "index.json").write_text(json.dumps(whole | changes))
        with pytest.raises(MagiError, match=message) as error:
            LatentCache(tmp_path / "cache")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("names", "columns", "message"), [
    (["../../x.mp4", "b.mp4"], {}, "names '../../x.mp4'"),
    (["/etc/passwd", "b.mp4"], {}, "names '/etc/passwd'"),
    (["a.mp4", "a.mp4"], {}, "twice"),
    (["a.mp4"], {}, "expected 1 values int64 of frames"),
    (None, {"frames": np.array([0, 3])}, "no video has"),
    (None, {"frames": np.array([5.0, 3.0])}, "expected 2 values int64 of frames"),
    (None, {"label": np.array([0, 7])}, "no video has"),
    (None, {"frame_rate": np.array([np.nan, 1.0])}, "no video has"),
    (None, {"recorded": np.array([True, False])}, "expected actions float32"),
])  # fmt: skip
def test_hostile_tables_are_refused(
    tmp_path: Path, names: list[str] | None, columns: dict[str, np.ndarray], message: str
) -> None:
    sound = {name: np.array([2, 3]) for name in ("frames", "bytes", "height", "width")}
    sound |= {"label": np.array([-1, 0]), "frame_rate": np.array([25.0, 0]), "recorded": np.zeros(2, bool)}
    actions = np.zeros((0, 0), np.float32)
    path = tmp_path / "videos.safetensors"
    path.write_bytes(VideoTable(["a.mp4", "b.mp4"], sound, actions, ["a"], []).to_bytes())
    assert VideoTable.read(path).names == ["a.mp4", "b.mp4"]
    path.write_bytes(VideoTable(names or ["a.mp4", "b.mp4"], sound | columns, actions, ["a"], []).to_bytes())
    with pytest.raises(MagiError, match=message):
        VideoTable.read(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_corrupted_is_read_or_refused(pristine: Path, tmp_path: Path, data: st.DataObject) -> None:
    directory = tmp_path / "cache"
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(pristine, directory)
    name = data.draw(st.sampled_from(["index.json", "videos.safetensors", "shards/00000.safetensors"]))
    content = bytearray((directory / name).read_bytes())
    place = data.draw(st.integers(0, min(len(content) - 1, 600)))
    if data.draw(st.booleans()):
        content[place : place + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=20))
    else:
        content[place] = data.draw(st.integers(0, 255))
    (directory / name).write_bytes(content)
    if name == "videos.safetensors" and data.draw(st.booleans()):  # whoever means harm writes a hash that is right
        rewrite(directory, table_sha256=file_sha256(directory / name))
    try:
        cache = LatentCache(directory)
        for video, info in enumerate(cache.videos().videos):
            cache.read(video, [info.num_frames - 1])
    except MagiError as error:
        assert "\n" not in str(error)


@pytest.fixture
def pristine(folder: VideoFolder, tmp_path: Path) -> Path:
    build(folder, tmp_path / "pristine")
    return tmp_path / "pristine"


def test_refusals(folder: VideoFolder, tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="depend on the interval"):
        build(folder, tmp_path / "cache", Causal4x())
    with pytest.raises(MagiError, match="no grid of clips"):
        build(folder, tmp_path / "cache", grid=ClipGrid(5, (1,), 5))
    with pytest.raises(MagiError, match="is long enough for clips of 5 frames at intervals 9"):
        build(folder, tmp_path / "cache", Causal4x(), grid=ClipGrid(5, (9,), 5))
    with pytest.raises(MagiError, match="beyond float16"):
        build(folder, tmp_path / "loud", HalvingCodec(1e9))
    (tmp_path / "file").write_text("")
    with pytest.raises(MagiError, match="cannot be written"):
        build(folder, tmp_path / "file" / "cache")
    with pytest.raises(MagiError, match="no latent cache"):
        LatentCache(tmp_path / "videos")
    cache = build(folder, tmp_path / "cache").cache
    for frames in ([10], [-1]):
        with pytest.raises(MagiError, match="expected 0 to"):
            cache.read(order(folder).index("c.mp4"), frames)
    before = contents(tmp_path / "cache")
    with pytest.raises(MagiError, match=r"holds another latent cache \(codec halving 1.0 → halving 2.0\)"):
        build(folder, tmp_path / "cache", HalvingCodec(2.0))
    with pytest.raises(MagiError, match=r"another latent cache \(shard_bytes 5760 → 7\)"):
        build(folder, tmp_path / "cache", shard_bytes=7)
    assert contents(tmp_path / "cache") == before
    assert Index.read(tmp_path / "cache").grid is None


def test_a_damaged_note_says_nothing(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    before = contents(directory)
    rewrite(directory, shards=[])  # as if it were unfinished
    shard(directory, 0).with_suffix(".json").write_text("")
    again = build(folder, directory)
    assert again.shards == list(range(len(again.cache.index.shards))) and contents(directory) == before


def test_notes_that_a_process_killed_at_its_end_has_left_are_removed(folder: VideoFolder, tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    build(folder, directory)
    before = contents(directory)
    note = json.dumps(dataclasses.asdict(Index.read(directory).shards[0]))
    shard(directory, 0).with_suffix(".json").write_text(note)  # the index is there, its notes not yet gone
    assert build(folder, directory).shards == [] and contents(directory) == before
