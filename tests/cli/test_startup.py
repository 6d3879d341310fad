"""What answers at once imports neither PyTorch nor what stands on it: asked of a new interpreter, not a clock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from magi_video.cli import VERBS
from magi_video.files.weights import shipped_models
from magi_video.pipeline.description import model_facts

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "scipy", "matplotlib", "av"}
ASK = """
import contextlib, io, json, sys
from magi_video.cli import main
found = {}
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        assert not main(arguments)
    found[" ".join(arguments)] = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps(found))
"""


def packages(*commands: list[str]) -> dict[str, list[str]]:
    """The packages that are imported after each of these commands, all run by one interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(commands)], capture_output=True, text=True, check=True, timeout=120
    )
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


REFUSE = """
import contextlib, io, json, sys
sys.modules["onnxruntime"] = None  # as if it were not installed
from magi_video.cli import main
found = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as error:
        code = main(arguments)
    found.append([code, error.getvalue(), sorted({name.partition(".")[0] for name in sys.modules})])
print(json.dumps(found))
"""


def refusals(commands: list[list[str]]) -> list[tuple[int, str, list[str]]]:
    """Exit code and message of each command, and the packages that are imported after it."""
    done = subprocess.run(
        [sys.executable, "-c", REFUSE, json.dumps(commands)], capture_output=True, text=True, check=True, timeout=120
    )
    return [tuple(one) for one in json.loads(done.stdout.splitlines()[-1])]


def test_help_info_and_plan_import_nothing_heavy(tmp_path: Path) -> None:
    commands = [["--help"], *([verb, "--help"] for verb in VERBS), ["train", "doom", "--help"]]
    commands += [["info", name, "--json"] for name in shipped_models()]
    commands += [["plan", "k600", "--devices", "64"], ["plan", "doom", "--devices", "1", "--json"]]
    for command, found in packages(*commands).items():
        assert not HEAVY & set(found), command


def test_a_pipeline_imports_little_beside_pytorch() -> None:
    ask = """
import json, sys
import torch
import pydantic.dataclasses
before = set(sys.modules)
import magi_video.pipeline.pipeline
imported = set(sys.modules)
magi_video.MagiVideoPipeline.from_pretrained("doom")(num_frames=2, num_mask_steps=1, num_denoise_steps=2)
print(json.dumps([sorted(imported - before), sorted(set(sys.modules) - before)]))
"""
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120)
    imported, used = json.loads(done.stdout.splitlines()[-1])
    compiler = ("torch._dynamo", "torch._inductor", "torch.distributed.", "sympy")
    for added in (imported, used):
        assert not (HEAVY - {"torch"} | {"huggingface_hub"}) & {name.partition(".")[0] for name in added}
        assert not [name for name in added if name.startswith(compiler)]
    unused = {"magi_video.codecs.video_vae", "magi_video.codecs.omnitokenizer", "magi_video.training"}
    assert not unused & set(used)
    others = [name for name in imported if not name.startswith("magi_video")]
    assert len(imported) <= 125 and len(others) <= 40, others


def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    for folder in ("videos", "empty", "begun"):
        (tmp_path / folder).mkdir()
    (tmp_path / "videos" / "0.mp4").touch()  # a video by its name
    (tmp_path / "begun" / "run.json").touch()
    videos, empty, file = (str(tmp_path / name) for name in ("videos", "empty", "file"))
    begun, out, taken = str(tmp_path / "begun"), ["--out", str(tmp_path / "out")], ["--out", file]
    Path(file).touch()
    Path(picture := str(tmp_path / "it.png")).touch()
    late = {"exposure": {"exposure": "resampling"}, "train": {"steps": 100}}
    (tmp_path / "late.json").write_text(json.dumps(late))
    refused = {
        "ONNX Runtime is not installed": [
            ["generate", "doom", *out, "--engine", "onnx"], ["demo", *out, "--engine", "onnx"],
            ["serve", "doom", "--engine", "onnx"], ["bench", "doom", "--engine", "onnx"],
            ["evaluate", "doom", "--data", videos, *out, "--engine", "onnx"],
            ["compare", "doom", "atari", "--data", videos, *out, "--engine", "onnx"],
        ],
        "frames must be at least 1, got 0": [
            ["generate", "doom", *out, "--frames", "0"], ["demo", *out, "--frames", "0"],
            ["bench", "doom", "--frames", "0"],
        ],
        "no model 'nowhere'": [
            ["generate", "nowhere", *out], ["serve", "nowhere"], ["export", "nowhere", *out],
            ["push", "nowhere", "me/it", "--dry-run", *out], ["evaluate", "nowhere", "--data", videos, *out],
        ],
        "no model or preset 'nowhere'": [["bench", "nowhere"]],
        "1 to compare; expected two models or recipes": [["compare", "doom", "--data", videos, *out]],
        "'nowhere' is no model": [["compare", "doom", "nowhere", "--data", videos, *out]],
        "nope: no such f": [
            ["generate", "doom", *out, "--first-frame", "nope"], ["generate", "doom", *out, "--context", "nope"],
            ["evaluate", "doom", "--data", "nope", *out], ["score", "nope", "f.png", *out], ["import", "minari", "nope",
            *out], ["train", "tiny", "--data", "nope", *out], ["encode", "tiny", "--data", "nope", *out],
            ["plan", "tiny", "--devices", "1", "--data", "nope"], ["compare", "doom", "atari", "--data", "nope", *out],
        ],
        "file: results cannot be written there (it is a file, not a folder)": [
            ["generate", "doom", *taken], ["demo", *taken], ["distill", "doom", *taken], ["train", "tiny", *taken],
            ["encode", "tiny", "--data", videos, *taken], ["evaluate", "doom", "--data", videos, *taken],
            ["compare", "doom", "atari", "--data", videos, *taken], ["reproduce", "drift", *taken],
            ["record", "magi/BouncingBalls-v0", *taken], ["import", "minari", videos, *taken],
            ["score", videos, videos, *taken], ["export", "doom", *taken], ["bench", "doom", *taken],
            ["push", "doom", "me/it", "--dry-run", *taken], ["weights", "convert-omnitokenizer", "x", *taken],
            ["bench", "doom", "--plot", f"{file}/bench.png"], ["bench", "doom", "--json", f"{file}/bench.json"],
        ],
        "file: a file; expected a folder of videos": [
            ["distill", "doom", *out, "--data", file], ["train", "tiny", *out, "--data", file],
            ["compare", "doom", "tiny", "--data", videos, "--train", file, *out],
        ],
        "empty: no usable video": [
            ["distill", "doom", *out, "--data", empty], ["train", "tiny", *out, "--data", empty],
            ["encode", "tiny", *out, "--data", empty], ["evaluate", "doom", *out, "--data", empty],
            ["compare", "doom", "atari", "--data", empty, *out], ["plan", "tiny", "--devices", "1", "--data", empty],
        ],
        "interval must lie in 1…4 for this model, got 9": [
            ["generate", "doom", *out, "--interval", "9"], ["distill", "doom", *out, "--max-interval", "9"],
            ["evaluate", "doom", "--data", videos, *out, "--interval", "9"],
            ["compare", "doom", "atari", "--data", videos, *out, "--interval", "9"],
        ],
        "interval must be 1 for this model, got 2": [
            ["generate", "coinrun", *out, "--interval", "2"],
            ["evaluate", "coinrun", "--data", videos, *out, "--interval", "2"],
        ],
        "0.mp4: a video; --context begins from one": [["generate", "doom", *out, "--first-frame", f"{videos}/0.mp4"]],
        "it.png: a picture; --first-frame begins from one": [["generate", "doom", *out, "--context", picture]],
        "unknown action 'NOSUCH': this model has": [["generate", "doom", *out, "--actions", "NOSUCH*3"]],
        "this model takes no label": [
            ["generate", "doom", *out, "--label", "0"], ["evaluate", "doom", "--data", videos, *out, "--labels"],
        ],
        "drift has no row 'nosuch'": [["reproduce", "drift", *out, "--rows", "nosuch"]],
        "forcing must be one of": [["reproduce", "table1", *out, "--rows", "nosuch"]],
        "rows are of the recipes": [["reproduce", "kv-cache", *out, "--rows", "noise"]],
        "different numbers from 0": [["reproduce", "drift", *out, "--seeds", "1", "1"]],
        "is a run, not a recipe: to go on with it": [["train", begun, *out], ["plan", begun, "--devices", "1"]],
        "is a folder, not a recipe": [["train", empty, *out]],
        "exposure 'resampling' begins after plain_steps 10,000, and this training ends after 100 steps": [
            ["plan", str(tmp_path / "late.json"), "--devices", "1"],
            ["encode", str(tmp_path / "late.json"), "--data", videos, *out],
            ["train", str(tmp_path / "late.json"), "--data", videos, *out],
        ],
        "is not for the paradigm masked": [["train", "tiny", "--forcing", "masked", "--exposure", "canvas", *out]],
        "size must lie in 1…1,048,576, got 9,999,999,999": [
            ["train", "tiny", *out, "--exposure", "error-bank", "--exposure-options", "size", "9999999999"],
        ],
        "--noise-levels is of the exposures that inject noise (canvas, noise)": [
            ["train", "tiny", *out, "--exposure", "none", "--noise-levels", "5"],
            ["plan", "tiny", "--devices", "1", "--exposure=none", "--noise-levels=5"],
        ],
    }  # fmt: skip
    commands = [(message, command) for message, those in refused.items() for command in those]
    for (message, command), (code, error, found) in zip(commands, refusals([one for _, one in commands]), strict=True):
        assert code == 1 and message in error and error.count("\n") == 1, (command, error)
        assert not HEAVY & set(found), command
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", shipped_models())
def test_info_tells_what_the_loaded_model_is(name: str) -> None:
    from magi_video import MagiVideoPipeline

    pipe, facts = MagiVideoPipeline.from_pretrained(name), model_facts(name)
    head = sum(parameter.numel() for parameter in pipe.transformer.diffusion_head.parameters())
    whole = sum(parameter.numel() for parameter in pipe.transformer.parameters())
    assert (facts["head_parameters"], facts["transformer_parameters"]) == (head, whole - head)
    assert facts["codec"] == type(pipe.codec).__name__
    assert facts["codec_parameters"] == sum(parameter.numel() for parameter in pipe.codec.parameters())
    assert facts["conditions"] == list(pipe.transformer.condition_tokens.specs)
    for setting in ("forcing", "frame_rate"):
        assert facts[setting] == pipe.config[setting]
    for name in ("mask_steps", "denoise_steps"):
        assert facts[name] == getattr(pipe.resolve(), name)
    assert (facts["actions"], facts["classes"]) == (pipe.config.action_names, pipe.config.class_names)
