"""The commands as a user types them: what they write, what they refuse, and with which exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from magi_video import MagiVideoPipeline
from magi_video.cli import VERBS, main
from magi_video.video.image import read_image, write_image
from magi_video.video.video import inspect_video, read_frames, write_video
from tests.training.conftest import moving_square


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, a first frame, and a model trained on them by the command."""
    root = tmp_path_factory.mktemp("cli")
    (root / "videos").mkdir()
    for number in range(4):
        write_video(root / "videos" / f"{number}.mp4", moving_square(20, number, 1), 10.0, crf=4)
    (root / "videos" / "broken.mp4").write_bytes(b"not a video")
    write_image(root / "first.png", moving_square(1, 0, 1, size=40)[0])
    options = ["--steps", "2", "--checkpoint-every", "2", "--sample-every", "2", "--hidden", "32", "--seed", "1"]
    assert main(["train", "tiny", "--data", str(root / "videos"), "--out", str(root / "run"), *options]) == 0
    return root


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    try:
        code = main([str(one) for one in argv])
    except SystemExit as stop:  # the parser's own exit
        code = stop.code if isinstance(stop.code, int) else 1
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_names_every_command_and_each_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(verb in out for verb in VERBS)
    for verb in VERBS:
        code, out, _ = run(capsys, verb, "--help")
        assert code == 0 and ("--out" in out or verb in ("info", "plan", "serve", "weights"))
    _, out, _ = run(capsys, "train", "doom", "--help")
    assert "--learning-rate" in out and "--noise-levels" in out and "--small-vae.steps" in out


def test_train_leaves_a_run_that_is_a_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder = folder / "run"
    for name in ("run.json", "log.jsonl", "model_index.json", "samples/step_00000002.png", "checkpoints", "codec"):
        assert (run_folder / name).exists(), name
    code, out, _ = run(capsys, "info", run_folder, "--json")
    facts = json.loads(out)
    assert code == 0 and facts["forcing"] == "complete" and facts["training_steps"] == 2 and facts["training_seed"] == 1
    assert len(facts["training_data"].pop("sha256")) == 64
    assert facts["training_data"] == {"videos": 4, "frames": 80, "left_out": 1, "games": []}
    code, out, _ = run(capsys, "info", run_folder)
    lines = {" ".join(line.split()) for line in out.splitlines()}
    assert code == 0 and "training_seed 1" in lines
    assert any(line.startswith("training_data frames 80, left_out 1, sha256 ") for line in lines)
    nothing = {name for name, value in facts.items() if value in (None, [], {})}
    assert {"actions", "classes", "metrics", "forcing_options"} <= nothing, "what a model has not is not listed"
    assert {line.partition(" ")[0] for line in lines} == set(facts) - nothing


def test_generate_writes_what_it_says(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["generate", folder / "run", "--first-frame", folder / "first.png", "--frames", 6, "--num", 2]
    code, out, _ = run(capsys, *arguments, "--interval", 2, "--out", tmp_path / "a", "--save-arrays", "--seed", 5)
    assert code == 0 and "frames/s" in out
    info = inspect_video(tmp_path / "a" / "sample_001.mp4")
    assert (info.num_frames, info.height, info.width, info.frame_rate) == (6, 256, 256, 5.0)
    exact = np.load(tmp_path / "a" / "sample_001.npy")
    assert exact.shape == (6, 16, 16, 3) and exact.dtype == np.uint8
    shown = read_frames(tmp_path / "a" / "sample_001.mp4")[:, 8::16, 8::16]
    assert np.abs(shown.astype(int) - exact).mean() < 12, "the video shows the frames"
    assert read_image(tmp_path / "a" / "contact.png").ndim == 3
    report = json.loads((tmp_path / "a" / "generate.json").read_text())
    assert report["seeds"] == [5, 6] and len(report["seconds_per_frame"]) == 6
    assert report["settings"]["mask_steps"] == 4 and report["settings"]["interval"] == 2
    assert (report["settings"]["sampler"], report["settings"]["first_step"]) == ("ancestral", 990)
    # The second of two with seed 5 is the first of one with seed 6.
    code, out, _ = run(
        capsys, *arguments[:-1], 1, "--interval", 2, "--out", tmp_path / "b", "--save-arrays", "--seed", 6, "--json"
    )
    assert code == 0 and json.loads(out)["seeds"] == [6]
    assert np.abs(np.load(tmp_path / "b" / "sample_000.npy").astype(int) - exact).max() <= 1


def test_more_mask_steps_than_tokens_are_told(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tokens = MagiVideoPipeline.from_pretrained(folder / "run").transformer.num_tokens
    for steps in (tokens, tokens + 1):
        _, _, told = run(
            capsys, "generate", folder / "run", "--frames", 1, "--out", tmp_path / str(steps), "--mask-steps", steps
        )
        assert (f"mask steps: {tokens}, one for each token, not {steps}" in told) == (steps > tokens)


def test_generate_at_a_speed_setting_and_precision(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["generate", folder / "run", "--frames", 3, "--setting", "fast", "--precision", "bf16", "--json"]
    code, out, _ = run(capsys, *arguments, "--out", tmp_path / "a", "--mask-steps", 2)
    told = json.loads(out)["settings"]
    assert code == 0 and (told["speed"], told["precision"]) == ("fast", "bf16")
    assert (told["mask_steps"], told["denoise_steps"], told["refresh"]) == (2, 8, 4)


def test_generate_from_a_video_and_from_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    context = folder / "videos" / "0.mp4"
    code, _, _ = run(
        capsys, "generate", folder / "run", "--context", context, "--context-frames", 3, "--interval", 2,
        "--frames", 5, "--out", tmp_path / "a", "--save-arrays",
    )  # fmt: skip
    assert code == 0
    given = np.load(tmp_path / "a" / "sample_000.npy")[:3]
    assert np.abs(given.astype(int) - read_frames(context, [0, 2, 4])).max() <= 1
    code, _, _ = run(capsys, "generate", folder / "run", "--frames", 3, "--out", tmp_path / "b")
    assert code == 0 and (tmp_path / "b" / "sample_000.mp4").is_file()


@pytest.mark.parametrize(("options", "message"), [
    (["--refresh", "0"], "refresh must be at least 1"),
    (["--first-frame", "nowhere.png"], "no such file"),
    (["--first-frame", "{root}/videos/broken.mp4"], "a video; --context begins from one"),
    (["--context", "{root}/videos/broken.mp4"], "broken.mp4"),
    (["--context", "{root}/videos/0.mp4", "--context-frames", "30"], "do not fit its 20 frames"),
    (["--context", "{root}/videos/0.mp4", "--context-frames", "0"], "--context-frames 0; expected 1 or more"),
    (["--context-frames", "2"], "give that too"),
    (["--context", "{root}/videos/0.mp4", "--context-frames", "8", "--frames", "4"], "at least 8, as many"),
    (["--interval", "0"], "interval must be at least 1, got 0"),
    (["--interval", "26"], "interval must lie in 1…4"),
    (["--frames", "0"], "frames must be at least 1, got 0"),
    (["--num", "0"], "num must lie in 1…"),
    (["--num", "99999999"], "num must lie in 1…"),
    (["--mask-steps", "-3"], "mask-steps must lie in 1…16,384, got -3"),
    (["--denoise-steps", "0"], "must lie in 1…1,000"),
    (["--denoise-steps", "2000"], "must lie in 1…1,000"),
    (["--sampler", "heun"], "unknown sampler"),
    (["--first-step", "1000"], "must lie in 0…999, got 1000"),
    (["--denoise-steps", "10", "--first-step", "8"], "need a first step of at least 9, got 8"),
    (["--actions", "JUMP"], "takes no actions"),
    (["--label", "3"], "no label"),
    (["--label", "red"], "takes no label"),
    (["--seed", "-1"], "seed must be at least 0, got -1"),
    (["--seed", "9223372036854775808"], "expected 0 or more, of 63 bits"),
    (["--frames", "100000000000"], "out of memory (can't allocate memory"),
    (["--device", "cuda:99x"], "not available"),
])  # fmt: skip
def test_generate_refuses_bad_input_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], message: str
) -> None:
    filled = [option.replace("{root}", str(folder)) for option in options]
    code, _, err = run(capsys, "generate", folder / "run", "--out", tmp_path / "out", *filled)
    lines = [line for line in err.splitlines() if line.startswith("magi generate: ")]
    assert code == 1 and len(lines) == 1 and message in lines[0]
    assert "Traceback" not in err and not (tmp_path / "out" / "sample_000.mp4").exists()


@pytest.mark.parametrize(("argv", "message"), [
    (["train"], "name a preset first"),
    (["train", "nope", "--data", "x", "--out", "y"], "no preset or file"),
    (["train", "tiny", "--data", "{tmp}/nowhere", "--out", "{tmp}/run"], "no such folder"),
    (["train", "tiny", "--data", "{root}/videos", "--out", "{root}/run", "--seed", "9"], "with other settings ("),
    (["train", "tiny", "--data", "{root}/videos", "--out", "{tmp}/r", "--max-interval", "26"], "must lie in 1…25"),
    (["train", "tiny", "--data", "{root}/videos", "--out", "{tmp}/r", "--actions"], "wants actions"),
    (["train", "tiny", "--data", "{root}/videos", "--out", "{root}/first.png"], "first.png"),
    (["info", "{tmp}/nowhere"], "no model"),
    (["train", "tiny", "--data", "{root}/videos", "--out", "{tmp}/r", "--seed", "-1"], "seed -1; expected 0 or more"),
    (["info", "{root}/videos"], "not the folder of a model: it has no model_index.json"),
    (["generate", "no-model", "--out", "{tmp}/x"], "no model"),
    (["record", "vizdoom/no_such_map", "--out", "{tmp}/x"], "no_such_map"),
    (["record", "NoSuchGame-v0", "--out", "{tmp}/x"], "NoSuchGame"),
])  # fmt: skip
def test_other_commands_refuse_bad_input_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, argv: list[str], message: str
) -> None:
    filled = [one.replace("{root}", str(folder)).replace("{tmp}", str(tmp_path)) for one in argv]
    code, _, err = run(capsys, *filled)
    assert code == 1 and "Traceback" not in err
    assert sum(line.startswith(f"magi {argv[0]}: ") for line in err.splitlines()) == 1 and message in err


def test_no_command_prints_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys)
    assert code == 2 and "commands:" in out and not err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[1].startswith("magi-video ")


def test_a_full_disk_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_arguments: object, **_settings: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = run(capsys, "generate", folder / "run", "--frames", 2, "--out", tmp_path)
    assert code == 1 and "contact.png: cannot be written (No space left on device)" in err
    assert "Traceback" not in err and not {"contact.png", "generate.json"} & {file.name for file in tmp_path.iterdir()}
