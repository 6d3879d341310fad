"""What answers at once imports neither PyTorch nor what stands on it: asked of a new interpreter, not a clock."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from magi_video.cli import VERBS
from magi_video.cli.info import describe
from magi_video.files.weights import shipped_models

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


def test_help_info_and_plan_import_nothing_heavy(tmp_path: Path) -> None:
    commands = [["--help"], *([verb, "--help"] for verb in VERBS), ["train", "doom", "--help"]]
    commands += [["info", name, "--json"] for name in shipped_models()]
    commands += [["plan", "k600", "--devices", "64"], ["plan", "doom", "--devices", "1", "--json"]]
    for command, found in packages(*commands).items():
        assert not HEAVY & set(found), command


def test_a_pipeline_adds_little_to_what_diffusers_imports() -> None:
    ask = """
import json, sys
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
import diffusers.models.autoencoders
import pydantic.dataclasses
before = set(sys.modules)
import magi_video.pipeline.pipeline
print(json.dumps(sorted(set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=120)
    added = json.loads(done.stdout.splitlines()[-1])
    assert not HEAVY & {name.partition(".")[0] for name in added}
    assert not {"magi_video.codecs.video_vae", "magi_video.codecs.omnitokenizer", "magi_video.training"} & set(added)
    others = [name for name in added if not name.startswith("magi_video")]
    assert len(added) <= 90 and len(others) <= 30, others


@pytest.mark.parametrize("name", shipped_models())
def test_info_tells_what_the_loaded_model_is(name: str) -> None:
    from magi_video import MagiVideoPipeline

    pipe, facts = MagiVideoPipeline.from_pretrained(name), describe(name)
    head = sum(parameter.numel() for parameter in pipe.transformer.diffusion_head.parameters())
    whole = sum(parameter.numel() for parameter in pipe.transformer.parameters())
    assert (facts["head_parameters"], facts["transformer_parameters"]) == (head, whole - head)
    assert facts["codec"] == type(pipe.codec).__name__
    assert facts["codec_parameters"] == sum(parameter.numel() for parameter in pipe.codec.parameters())
    assert facts["conditions"] == list(pipe.transformer.condition_tokens.specs)
    for setting in ("forcing", "frame_rate", "mask_steps", "denoise_steps"):
        assert facts[setting] == pipe.config[setting]
    assert (facts["actions"], facts["classes"]) == (pipe.config.action_names, pipe.config.class_names)
