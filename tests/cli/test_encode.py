"""`magi encode` as a user types it, and training on what it wrote."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from magi_video.cli import main
from magi_video.codecs.base import CODECS
from magi_video.distributed import Processes
from magi_video.errors import MagiError
from magi_video.fast.kernel_choice import FAST_FLOAT32, KERNELS, Kernel
from magi_video.files.artifact import Artifact
from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.training.encode import encode
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.codecs.codec_examples import Causal4x
from tests.files.test_lock import other_process
from tests.processes import in_processes
from tests.training.conftest import moving_square


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five videos in two classes, one with a caption, and their cache: small shards of one or two videos."""
    root = tmp_path_factory.mktemp("encode")
    for number in range(5):
        (root / "videos" / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        write_video(root / "videos" / "ab"[number % 2] / f"{number}.mp4", moving_square(20 + number, number, 1), 10.0)
    (root / "videos" / "a" / "0.txt").write_text("a square")
    assert main(["encode", "tiny", "--data", str(root / "videos"), "--out", str(root / "cache"), *SHARDS]) == 0
    return root


SHARDS = ("--shard-size", "0.08")


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(one) for one in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def contents(directory: Path) -> dict[str, bytes]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def losses(run_folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_folder / "log.jsonl").read_text().splitlines()]


def test_what_it_tells(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["encode", "tiny", "--data", root / "videos", "--out", root / "cache", *SHARDS]
    code, out, _ = run(capsys, *command, "--json")
    told = json.loads(out)
    assert code == 0 and (told["videos"], told["frames"], told["encoded_shards"], told["shards"]) == (5, 110, 0, 3)
    assert told["captions"] == 1
    assert told["bytes"] == sum(path.stat().st_size for path in (root / "cache" / "shards").iterdir())
    assert len(told["mean"]) == len(told["std"]) == 3 and told["damaged_shards"] == []
    code, out, _ = run(capsys, *command)
    assert code == 0 and "5 videos, 110 frames, 1 caption" in out and "encoded 0 of them" in out


def test_a_cache_goes_on_with_the_kernels_that_it_began_with(
    root: Path, tmp_path: Path, settled_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again(pays: bool, folder: Path = tmp_path / "cache") -> tuple[object, bool | None]:
        monkeypatch.setattr(Kernel, "pays", pays)
        encode(load_preset("tiny"), root / "videos", folder)
        return json.loads((folder / "recipe.json").read_text()).get("chosen"), KERNELS[FAST_FLOAT32].settled

    monkeypatch.setattr(KERNELS[FAST_FLOAT32], "works", True)
    began = {FAST_FLOAT32: True}
    assert again(True) == again(False) == (began, True), "the record counts, not what pays now"
    assert again(False, tmp_path / "other") == ({FAST_FLOAT32: False}, False)
    recipe = tmp_path / "cache" / "recipe.json"
    former = {name: one for name, one in json.loads(recipe.read_text()).items() if name != "chosen"}
    recipe.write_text(json.dumps(former))
    assert again(True) == ({FAST_FLOAT32: False}, False), "earlier versions used no kernel of ours"


def test_training_with_flips_needs_the_mirror_images_which_the_same_command_adds(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "cache", tmp_path / "cache")
    train_it = ["train", "tiny", "--latents", tmp_path / "cache", "--out", tmp_path / "run", "--steps", 2]
    train_it += ["--flip", "0.5", "--tracker", "none"]
    code, _, err = run(capsys, *train_it)
    assert code == 1 and "no latents of mirrored videos" in err.splitlines()[-1] and "Traceback" not in err
    command = ["encode", "tiny", "--data", root / "videos", "--out", tmp_path / "cache", *SHARDS, "--flip", "0.5"]
    code, out, _ = run(capsys, *command)
    assert code == 0 and "and as many mirrored" in out and "encoded 3 of them" in out and "6 shards" in out
    assert run(capsys, *train_it)[0] == 0


def test_damage_is_named_and_mended_by_the_same_command(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root / "cache", tmp_path / "cache")
    shard = tmp_path / "cache" / "shards" / "00001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 64
    shard.write_bytes(content)
    command = ["encode", "tiny", "--data", root / "videos", "--out", tmp_path / "cache", *SHARDS, "--verify"]
    code, out, err = run(capsys, *command)
    assert code == 0 and "shard 00001 was damaged" in err and "encoded 1 of them" in out
    assert contents(tmp_path / "cache") == contents(root / "cache")


def test_two_processes_write_the_same_bytes(root: Path, tmp_path: Path) -> None:
    command = ["encode", "tiny", "--data", str(root / "videos"), "--out", str(tmp_path / "cache"), *SHARDS]
    assert in_processes(2, lambda _: main(command)) == [0, 0]
    assert contents(tmp_path / "cache") == contents(root / "cache")


@pytest.mark.parametrize(("verb", "record"), [("encode", "recipe.json"), ("train", "run.json")])
def test_of_two_commands_on_one_folder_the_second_is_told_so_and_may_follow_the_first(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, record: str
) -> None:
    """The first is killed, which leaves nothing in the way."""
    command = [verb, "tiny", "--data", root / "videos", "--out", tmp_path / "out"]
    command += ["--steps", "1"] if verb == "train" else []
    with other_process(lambda: Artifact(tmp_path / "out" / record, "anything").making({}, Processes())) as told:
        assert told == "entered"
        (tmp_path / "out" / record).unlink()  # what the other one makes is another matter
        code, _, err = run(capsys, *command)
        lines = [line for line in err.splitlines() if line.startswith(f"magi {verb}: ")]
        assert code == 1 and len(lines) == 1 and "another run is at work there; wait for its end" in lines[0]
        assert not (tmp_path / "out" / record).exists()
    assert run(capsys, *command)[0] == 0


def test_training_needs_no_videos(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The latents of the cache, and what it knows of the videos, give the steps that the videos give."""
    options = ["--steps", "3", "--log-every", "1", "--labels", "--hidden", "32"]
    for name, source in {
        "alone": ["--latents", root / "cache"],
        "both": ["--latents", root / "cache", "--data", root / "videos"],
        "videos": ["--data", root / "videos"],
    }.items():
        assert run(capsys, "train", "tiny", *source, "--out", tmp_path / name, *options)[0] == 0
    assert losses(tmp_path / "alone") == losses(tmp_path / "both")
    assert losses(tmp_path / "alone") == pytest.approx(losses(tmp_path / "videos"), abs=2e-3), "float16 and float32"
    assert (tmp_path / "both" / "samples").exists() and not (tmp_path / "alone" / "samples").exists()
    assert run(capsys, "generate", tmp_path / "alone", "--frames", 2, "--out", tmp_path / "g", "--label", 1)[0] == 0


def test_the_codec_of_a_run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = ["--codec", "small_vae", "--small-vae.steps", 2, "--small-vae.width", 8]
    small = [*vae, "--steps", 1, "--patch-size", 1]
    paths = {name: tmp_path / name for name in ("run", "cache", "other")}
    assert run(capsys, "train", "tiny", "--data", root / "videos", "--out", paths["run"], *small)[0] == 0
    assert run(capsys, "encode", paths["run"], "--data", root / "videos", "--out", paths["cache"])[0] == 0
    before = contents(paths["run"] / "latents" / "shards")
    assert before and contents(paths["cache"] / "shards") == before, "the run had encoded the same"
    assert run(capsys, "train", "tiny", "--latents", paths["cache"], "--out", paths["other"], *small)[0] == 0
    assert losses(paths["other"]) == losses(paths["run"])
    code, _, err = run(capsys, "train", "tiny", "--latents", root / "cache", "--out", paths["other"], *small)
    assert code == 1 and "codec pixels → small_vae" in err
    mine = ["--out", tmp_path / "mine", *vae, "--seed", 5]
    assert run(capsys, "encode", "tiny", "--data", root / "videos", *mine)[0] == 0
    code, _, err = run(capsys, "train", "tiny", "--latents", tmp_path / "mine", "--out", paths["run"], *small)
    assert code == 1 and "holds another codec than" in err


@pytest.mark.parametrize(("argv", "message"), [
    (["encode"], "name a preset first"),
    (["encode", "nope", "--data", "x", "--out", "y"], "no preset or file"),
    (["encode", "{root}/videos", "--data", "x", "--out", "y"], "run.json: no such file"),
    (["encode", "tiny", "--data", "{tmp}/nowhere", "--out", "{tmp}/c"], "no such folder"),
    (["encode", "tiny", "--data", "{root}/videos", "--out", "{tmp}/c", "--shard-size", "0"], "expected more than 0"),
    (["encode", "tiny", "--data", "{root}/videos", "--out", "{tmp}/c", "--intervals", "1"], "expected no --intervals"),
    (["encode", "tiny", "--data", "{root}/videos", "--out", "{root}/cache"], "shard_bytes 80000 → 256000000"),
    (["encode", "tiny", "--data", "{root}/videos", "--out", "{root}/cache", "--height", "8"], "height 16 → 8"),
    (["encode", "tiny", "--data", "{root}/videos", "--out", "{root}/cache", "--seed", "3"], "seed 0 → 3"),
    (["encode", "tiny", "--data", "{root}/videos", "--out", "{root}/cache", "--codec", "image_vae"], "pixels → image"),
    (["train", "tiny", "--out", "{tmp}/r"], "nothing to train on"),
    (["train", "tiny", "--latents", "{root}/videos", "--out", "{tmp}/r"], "no latent cache"),
    (["train", "tiny", "--latents", "{root}/cache", "--out", "{tmp}/r", "--width", "32"], "width 16 → 32"),
    (["train", "tiny", "--latents", "{root}/cache", "--out", "{tmp}/r", "--codec", "small_vae"], "pixels → small_vae"),
    (["train", "tiny", "--latents", "{root}/cache", "--out", "{tmp}/r", "--dataset", "ucf101"], "folder → ucf101"),
    (["train", "tiny", "--latents", "{root}/cache", "--data", "{root}/videos/a", "--out", "{tmp}/r"], "another data"),
])  # fmt: skip
def test_refusals_in_one_line(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argv: list[str], message: str
) -> None:
    before = contents(root / "cache")
    code, _, err = run(capsys, *[one.replace("{root}", str(root)).replace("{tmp}", str(tmp_path)) for one in argv])
    assert code == 1 and "Traceback" not in err and message in err
    assert sum(line.startswith(f"magi {argv[0]}: ") for line in err.splitlines()) == 1
    assert contents(root / "cache") == before


@pytest.fixture
def causal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a codec that compresses time four times."""
    CODECS.register(Causal4x)
    Causal4x().save_pretrained(tmp_path / "causal")
    yield tmp_path / "causal"
    CODECS.forget("causal4x")


def short(**data: int) -> Preset:
    preset = load_preset("tiny")
    steps = replace(preset.train, steps=3, sample_every=0, log_every=1)
    return replace(preset, data=replace(preset.data, **{"num_frames": 5, "max_interval": 3} | data), train=steps)


def test_clips_of_a_causal_codec_train_as_if_encoded_in_the_loop(root: Path, tmp_path: Path, causal: Path) -> None:
    encoded = encode(short(), root / "videos", tmp_path / "cache", codec=causal, stride=1)
    assert encoded.cache.grid is not None and encoded.cache.grid.intervals == (1, 2, 3)
    train(short(), None, tmp_path / "cached", latents=tmp_path / "cache")
    shutil.copytree(causal, tmp_path / "online" / "codec")
    train(short(), root / "videos", tmp_path / "online")
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "online"), abs=2e-3)


def test_clips_of_other_lengths_or_intervals_are_refused(root: Path, tmp_path: Path, causal: Path) -> None:
    encode(short(), root / "videos", tmp_path / "cache", codec=causal, intervals=[1, 3])
    train(short(), None, tmp_path / "run", latents=tmp_path / "cache")
    for data, message in (
        ({"num_frames": 9}, "num_frames 5 → 9"),
        ({"max_interval": 4}, "max_interval 3 → 4"),
        ({"min_interval": 2}, "min_interval 1 → 2"),
    ):
        with pytest.raises(MagiError, match=message):
            train(short(**data), None, tmp_path / "other", latents=tmp_path / "cache")
    for options, message in (({"intervals": [1, 2]}, "intervals 1, 3 → 1, 2"), ({"stride": 9}, "stride 5 → 9")):
        with pytest.raises(MagiError, match=message):
            encode(short(), root / "videos", tmp_path / "cache", codec=causal, **{"intervals": [1, 3]} | options)
