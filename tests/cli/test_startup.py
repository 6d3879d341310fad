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
    assert len(imported) <= 110 and len(others) <= 40, others


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
