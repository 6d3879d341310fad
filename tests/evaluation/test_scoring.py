"""Scores of two sets of clips: what they see, where clips may come from, what is refused, and the cache."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_video.cli.score import print_result
from magi_video.errors import MagiError
from magi_video.evaluation.clipset import as_clips
from magi_video.evaluation.features import Detectors, FeatureStore, prefix_lengths
from magi_video.evaluation.figures import warnings
from magi_video.evaluation.frechet import Moments, frechet_distance
from magi_video.evaluation.paired import paired_errors
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.scoring import score, video_features
from magi_video.video.video import write_video
from tests.evaluation.conftest import random_clips
from tests.evaluation.networks import small_video_network

Scored = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def scored(detectors: Detectors) -> Scored:
    return lambda real, fake, *args, **options: score(real, fake, *args, **{"detectors": detectors} | options)


def noisy(clips: list[np.ndarray], level: int, seed: int = 9) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [np.clip(c + generator.integers(-level, level + 1, c.shape), 0, 255).astype(np.uint8) for c in clips]


def test_a_set_is_at_no_distance_from_itself_and_noise_adds_some(scored: Scored) -> None:
    real = random_clips(12)
    same = scored(real, real)
    assert same["fvd"] < 1e-6 and same["fid"] < 1e-6 and same["motion"]["speed_distance"] == 0
    little, much = (scored(real, noisy(real, level)) for level in (10, 120))
    assert same["fvd"] < little["fvd"] < much["fvd"] and little["fid"] < much["fid"]
    assert same["real_hash"] == same["fake_hash"] == little["real_hash"] != little["fake_hash"]


def test_the_figures_are_those_of_their_definitions(scored: Scored, detectors: Detectors) -> None:
    real, fake = random_clips(12), random_clips(14, seed=1)
    protocol = PROTOCOLS["small"]
    result = scored(real, fake)
    features = [video_features(side, protocol, small_video_network) for side in (real, fake)]
    direct = frechet_distance(*map(Moments.from_features, features), ddof=1, root="eigh").value
    assert result["fvd"] == float(f"{direct:.6g}") == result["fvd_over_length"]["fvd"][-1]
    shorter = [video_features([c[:10] for c in side], protocol, small_video_network) for side in (real, fake)]
    direct = frechet_distance(*map(Moments.from_features, shorter), ddof=1, root="eigh").value
    assert result["fvd_over_length"]["frames"] == [10, 12, 14, 16]
    assert result["fvd_over_length"]["fvd"][0] == float(f"{direct:.6g}")
    assert detectors.image is not None
    frames = [np.stack([detectors.image(torch.from_numpy(c)).numpy() for c in side]) for side in (real, fake)]
    together = frechet_distance(*(Moments.from_features(f.reshape(-1, 6)) for f in frames), ddof=1).value
    fifth = frechet_distance(*(Moments.from_features(f[:, 5]) for f in frames), ddof=1).value
    assert result["fid"] == pytest.approx(together, rel=1e-5)
    assert result["per_frame"]["fid"][result["per_frame"]["index"].index(5)] == pytest.approx(fifth, rel=1e-5)
    speed = np.mean([np.abs(np.diff(c.astype(int), axis=0)).mean((1, 2, 3)) for c in fake], axis=0)
    assert result["per_frame"]["motion"] == pytest.approx(speed, rel=1e-5), "into frames 1 to 15"
    assert (result["num_real"], result["num_fake"]) == (12, 14)


def test_paired_figures_are_of_generated_frames_alone(scored: Scored) -> None:
    real = random_clips(6)
    fake = [clip.copy() for clip in real]
    for clip in fake:
        clip[:5] = 255 - clip[:5]  # given frames: whatever they are, they do not count
        clip[7] = np.clip(clip[7].astype(int) + 10, 0, 255)
    result = scored(real, fake, paired=True, context_frames=5)
    assert result["per_frame"]["index"] == list(range(5, 16))
    psnr = dict(zip(result["per_frame"]["index"], result["per_frame"]["psnr"], strict=True))
    assert psnr[6] == 100 and psnr[7] < 30 and result["per_frame"]["lpips"][0] == 0
    assert result["paired"]["psnr"] == pytest.approx(np.mean(list(psnr.values())), rel=1e-5)
    lengths = {name: len(values) for name, values in result["per_frame"].items()}
    assert set(lengths.values()) == {11} and result["protocol"]["context"] == "5 frames"
    unpaired = scored(real, fake, fid=False)
    assert "paired" not in unpaired and "psnr" not in unpaired["per_frame"]


def test_paired_errors_of_one_clip() -> None:
    real = np.zeros((2, 16, 16, 3), np.uint8)
    fake = real.copy()
    fake[1] = 255
    errors = paired_errors(real, fake, None)
    assert errors["psnr"].tolist() == [100, 0] and errors["ssim"][0] == pytest.approx(1)
    assert errors["ssim"][1] < 0.01 and "lpips" not in errors
    with pytest.raises(MagiError, match="expected one shape"):
        paired_errors(real, fake[:1], None)


def test_given_frames_outside_the_scored_clip(scored: Scored) -> None:
    real, fake = random_clips(6), random_clips(6, seed=1)
    spoilt = [np.concatenate([255 - clip[:4], clip[4:]]) for clip in fake]
    outside = dataclasses.replace(PROTOCOLS["small"], given=4, score_given=False)
    inside = dataclasses.replace(PROTOCOLS["small"], given=4)
    assert scored(real, fake, outside)["fvd"] == scored(real, spoilt, outside)["fvd"]
    assert scored(real, fake, outside)["per_frame"]["fid"] == scored(real, spoilt, outside)["per_frame"]["fid"]
    assert scored(real, fake, inside)["fvd"] != scored(real, spoilt, inside)["fvd"]
    assert scored(real, fake, outside)["protocol"]["score_given"] is False
    assert scored(real, fake, outside)["fvd_over_length"]["frames"] == [10, 12]


def test_folders_arrays_and_memory_give_the_same_figures(scored: Scored, tmp_path: Path) -> None:
    real, fake = random_clips(5), random_clips(5, seed=1)
    for side, clips in (("real", real), ("fake", fake)):
        (tmp_path / side).mkdir()
        for number, clip in enumerate(clips):
            np.save(tmp_path / side / f"{number:06d}.npy", clip)
        np.save(tmp_path / f"{side}.npy", np.stack(clips))
    memory = scored(real, fake, paired=True)
    assert memory == scored(np.stack(real), np.stack(fake), paired=True)
    assert memory == scored(tmp_path / "real", tmp_path / "fake", paired=True)
    assert memory == scored(tmp_path / "real.npy", str(tmp_path / "fake.npy"), paired=True)


def test_a_folder_of_real_videos_is_sampled_and_fitted(scored: Scored, numbered_videos: Path, tmp_path: Path) -> None:
    for number, clip in enumerate(random_clips(4, frames=18)):
        write_video(tmp_path / f"fake_{number}.mp4", clip, 10.0)
    result = scored(numbered_videos, tmp_path, num=4, num_real=9)
    assert (result["num_real"], result["num_fake"], result["left_out_real"]) == (9, 4, 2)
    assert result["per_frame"]["index"][-1] == 15, "the first 16 of 18 frames"
    assert result["real_clips"] == "chosen by the protocol"
    assert scored(random_clips(3), random_clips(3))["real_clips"] == "finished, as they came"


def test_the_result_is_written_whole(scored: Scored, tmp_path: Path) -> None:
    real, fake = random_clips(5), random_clips(5, seed=1)
    result = scored(real, fake, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == result
    assert "<html" in (tmp_path / "out" / "report.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metrics.json", "report.html"]


def test_a_result_names_its_clips_libraries_and_rules(
    scored: Scored, numbered_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = random_clips(4)
    for number, clip in enumerate(fakes):
        write_video(tmp_path / "fake" / f"{number}.mp4", clip, 12.5)
    result = scored(numbered_videos, tmp_path / "fake")
    real, fake = result["clips"]["real"], result["clips"]["fake"]
    assert len(real["names"]) == len(real["sha256"]) == result["num_real"] and "@" in real["names"][0]
    assert fake["names"] == ["0", "1", "2", "3"]
    assert (real["frame_rate"], fake["frame_rate"]) == ([25, 25], [12.5, 12.5])
    assert (real["sizes"], fake["sizes"]) == ([[16, 48]], [[16, 16]])
    assert any("real clips show 25 frames/s, generated ones 12.5" in text for text in result["warnings"])
    told = [text for text in result["warnings"] if "resized" in text]
    count = result["num_real"]
    assert told == [
        f"{count} of {count} real clips have 16 × 48 pixels: cropped and resized to the generated clips' 16 × 16"
    ]
    assert result["real_data"]["videos"] == 7 and len(result["real_data"]["sha256"]) == 64
    assert {"pillow", "av", "scipy", "torch", "numpy", "torchmetrics"} <= set(result["versions"])
    assert result["protocol"]["context_clips"] == "not known: nothing is paired" and "ssim_rule" not in result
    paired = scored(fakes, fakes, paired=True)
    assert paired["protocol"]["context_clips"].endswith("fake i continues real i")
    assert paired["clips"]["fake"]["frame_rate"] is None and "reflected" in paired["ssim_rule"]["border"]
    assert not any("frames/s" in text or "resized" in text for text in paired["warnings"])
    assert result["given_frames_scored"] == 1
    print_result(result, tmp_path, as_json=False)
    assert "FVD and FID count the 1 given frame of each clip" in capsys.readouterr().out


def test_an_ssim_follows_the_rule_that_is_recorded() -> None:
    real, fake = random_clips(1, size=32)[0], random_clips(1, seed=1, size=32)[0]
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()

    def blurred(picture_HW: np.ndarray) -> np.ndarray:
        for axis in (0, 1):
            padded = np.pad(picture_HW, [(5, 5) if one == axis else (0, 0) for one in (0, 1)], mode="reflect")
            windows = np.lib.stride_tricks.sliding_window_view(padded, 11, axis=axis)
            picture_HW = windows @ weights
        return picture_HW

    values = []
    for channel in range(3):
        a, b = (clip[0, ..., channel].astype(float) for clip in (real, fake))
        mean_a, mean_b = blurred(a), blurred(b)
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        upper = (2 * mean_a * mean_b + c1) * (2 * (blurred(a * b) - mean_a * mean_b) + c2)
        lower = (mean_a**2 + mean_b**2 + c1) * (blurred(a * a) - mean_a**2 + blurred(b * b) - mean_b**2 + c2)
        values.append(upper / lower)
    expected, interior = np.mean(values), np.mean(np.stack(values)[:, 5:-5, 5:-5])
    measured = paired_errors(real, fake, None)["ssim"][0]
    assert measured == pytest.approx(expected, abs=1e-4) and abs(interior - expected) > 1e-3


def test_fewer_than_the_protocol_asks_for(scored: Scored) -> None:
    real, fake = random_clips(6), random_clips(6, seed=1)
    with pytest.raises(MagiError, match=r"6 real clips of 16 frames \(0 left out\), 2048 expected; --num 6"):
        scored(real, fake, "stylegan-v")
    result = scored(real, fake, "stylegan-v", num=4, over_length=False, fid=False)
    assert result["reduced"] and result["num_fake"] == 4 and "fvd_over_length" not in result
    assert any("4 real clips, the protocol asks for 2048" in text for text in result["warnings"])
    assert any("16 × 16 pixels, the protocol 256 × 256" in text for text in result["warnings"])
    assert not scored(real, fake)["reduced"]


def test_warnings_follow_the_numbers() -> None:
    small, magi = PROTOCOLS["small"], PROTOCOLS["magi-ucf101"]
    assert warnings(2048, 2048, magi, 400) == []
    assert any("lacks rank" in text for text in warnings(400, 2048, small, 400))
    assert not any("lacks rank" in text for text in warnings(401, 401, small, 400))
    assert any("biased upwards" in text for text in warnings(401, 401, small, 400))


def pickled(path: Path) -> None:
    np.save(path / "0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def floats(path: Path) -> None:
    np.save(path / "0.npy", random_clips(1)[0] / 255)


def grey(path: Path) -> None:
    np.save(path / "0.npy", random_clips(1)[0][..., :1])


def mixed(path: Path) -> None:
    for number, size in enumerate((16, 16, 32)):
        np.save(path / f"{number}.npy", random_clips(1, size=size)[0])


def text(path: Path) -> None:
    (path / "0.npy").write_text("hello")


def two_kinds(path: Path) -> None:
    np.save(path / "0.npy", random_clips(1)[0])
    (path / "1.mp4").write_bytes(b"")


def broken_video(path: Path) -> None:
    (path / "1.mp4").write_bytes(b"no video")


def short(path: Path) -> None:
    for number in range(3):
        np.save(path / f"{number}.npy", random_clips(1, frames=9)[0])


def nothing(path: Path) -> None:
    (path / "notes.txt").write_text("none")


def one(path: Path) -> None:
    np.save(path / "0.npy", random_clips(1)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (pickled, "0.npy: not a .npy file of numbers .*pickled"),
        (floats, r"0.npy is float64 \[16, 16, 16, 3\]; expected uint8"),
        (grey, r"expected uint8 \[frames, height, width, 3\]"),
        (mixed, "2.npy has 32 × 32 pixels, .*0.npy 16 × 16; expected one size"),
        (text, "0.npy: not a .npy file of numbers"),
        (two_kinds, "holds 1.mp4 and .*0.npy; expected either"),
        (broken_video, "none of its 1 videos can be read"),
        (short, "no clip of at least 16 frames .longest 9.*I3D needs at least 10"),
        (nothing, "nothing to score in it"),
        (one, "1 generated clips of 16 frames .*, 2 expected"),
    ],
)
def test_unusable_clips_are_refused(scored: Scored, tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    (tmp_path / "fake").mkdir()
    make(tmp_path / "fake")
    with pytest.raises(MagiError, match=message) as error:
        scored(random_clips(4), tmp_path / "fake", out=tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_unusable_arrays_in_memory_are_refused(scored: Scored, tmp_path: Path) -> None:
    real = random_clips(4)
    for fake, message in (
        ([clip.astype(float) for clip in real], "generated clip 0 is float64"),
        ([], "no generated clips were given"),
        ([*real, random_clips(1, size=8)[0]], "generated clip 4 has 8 × 8"),
        (["a", "b"], "generated clip 0 is a str"),
        (tmp_path / "nowhere", "no such folder"),
    ):
        with pytest.raises(MagiError, match=message):
            scored(real, fake)
    with pytest.raises(MagiError, match="4 real and 3 generated clips cannot be paired"):
        scored(real, real[:3], paired=True)
    np.save(tmp_path / "flat.npy", real[0])
    with pytest.raises(MagiError, match=r"flat.npy is uint8 \[16, 16, 16, 3\]; expected uint8 \[clips"):
        scored(real, tmp_path / "flat.npy")
    with pytest.raises(MagiError, match="I3D needs at least 10"):
        video_features([real[0][:9]], PROTOCOLS["small"], small_video_network)


def test_pairs_must_have_equal_names(scored: Scored, tmp_path: Path) -> None:
    for side, names in (("real", "ab"), ("fake", "ac")):
        (tmp_path / side).mkdir()
        for name, clip in zip(names, random_clips(2), strict=True):
            np.save(tmp_path / side / f"{name}.npy", clip)
    with pytest.raises(MagiError, match="real clip b and generated clip c cannot be paired"):
        scored(tmp_path / "real", tmp_path / "fake", paired=True)


def test_real_features_are_kept_and_a_damaged_file_is_made_anew(
    scored: Scored, detectors: Detectors, cache: Path
) -> None:
    real, fake = random_clips(3), random_clips(3, seed=1)
    calls = []

    def counting(video_BCTHW: torch.Tensor) -> torch.Tensor:
        calls.append(video_BCTHW.shape[2])
        return small_video_network(video_BCTHW)

    counted = dataclasses.replace(detectors, video=counting)
    first = scored(real, fake, detectors=counted)
    assert len(calls) == 24, "four lengths of six clips"
    calls.clear()
    assert scored(real, fake, detectors=counted) == first and len(calls) == 12, "the generated ones alone"
    for path in (cache / "features").rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    calls.clear()
    assert scored(real, fake, detectors=counted) == first and len(calls) == 24
    calls.clear()
    assert scored(real, fake, detectors=counted) == first and len(calls) == 12, "the damage is mended"
    for path in (cache / "features").rglob("*.safetensors"):
        path.write_bytes(b"short")
    assert scored(real, fake, detectors=counted) == first
    other = dataclasses.replace(counted, hashes={"i3d": "another network"})
    calls.clear()
    scored(real, fake, detectors=other)
    assert len(calls) == 24, "another detector's features are others"
    calls.clear()
    scored(real, fake, "videogpt", detectors=counted, num=3)
    assert len(calls) == 24, "and so are those of another resize"


def test_features_of_a_network_without_a_name_are_not_kept(scored: Scored, detectors: Detectors, cache: Path) -> None:
    scored(random_clips(3), random_clips(3), detectors=dataclasses.replace(detectors, hashes={}))
    assert not (cache / "features").exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FeatureStore(tmp_path / "file" / "features")
    assert store.get(lambda: np.arange(3.0), clip="a").tolist() == [0, 1, 2]


def test_networks_that_are_missing_leave_their_figures_out(scored: Scored, detectors: Detectors) -> None:
    real, fake = random_clips(3), random_clips(3, seed=1)
    poor = dataclasses.replace(detectors, image=None, missing=["FID left out: no weights"])
    result = scored(real, fake, detectors=poor)
    assert result["fid"] is None and "fid" not in result["per_frame"]
    assert "FID left out: no weights" in result["warnings"]


@pytest.mark.parametrize(("side", "left_out"), [(16, True), (30, True), (31, False), (None, False)])
def test_lpips_is_left_out_of_frames_that_it_does_not_take(
    side: int | None, left_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from magi_video.evaluation.detectors.i3d import I3D
    from magi_video.evaluation.detectors.lpips import LPIPS

    monkeypatch.setattr(I3D, "pretrained", torch.nn.Identity)
    monkeypatch.setattr(LPIPS, "pretrained", staticmethod(LPIPS))
    found = Detectors.load(torch.device("cpu"), image=False, perceptual=True, side=side)
    assert (found.perceptual is None) == left_out
    told = f"LPIPS left out: it compares frames of 31 pixels or more on each side, these have {side}"
    assert found.missing == ([told] if left_out else [])
    if side is not None and not left_out:
        assert found.perceptual(*(torch.zeros(1, 3, side, side),) * 2) == 0


def test_lengths_of_prefixes() -> None:
    assert prefix_lengths(10) == [10] and prefix_lengths(16) == [10, 12, 14, 16]
    assert prefix_lengths(17) == [10, 12, 14, 16, 17] and prefix_lengths(100)[-2:] == [96, 100]
    assert prefix_lengths(48) == [16, 32, 48]


def test_videos_as_clips_keep_their_order_and_count_what_cannot_be_read(numbered_videos: Path) -> None:
    clips = as_clips(numbered_videos)
    assert clips.names == ["short", *(f"video_{number}" for number in range(6))]
    assert clips.lengths[:2] == [8, 40] and clips.left_out == 1
