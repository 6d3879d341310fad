"""Engines: a graph gives PyTorch's frames, whatever is asked for; what it does not cover is said and PyTorch's."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from magi_video.codecs.autoencoder_tiny import AutoencoderTiny
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.errors import MagiError
from magi_video.fast import engine_choice
from magi_video.fast.engine import Engine
from magi_video.fast.engine_choice import choose_engine
from magi_video.fast.graph_engine import step_forms
from magi_video.fast.graph_past import GraphPast
from magi_video.fast.job import Job
from magi_video.fast.onnx_engine import OnnxEngine, step_name
from magi_video.fast.onnx_graph import SUFFIX, Graph, GraphFiles
from magi_video.paradigms import make_paradigm
from magi_video.sampling.sampling import Sampling
from tests.fast.jobs import CASES, Make, make_job, roll

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs of this file's tests, each made once."""
    return tmp_path_factory.mktemp("graphs")


def prepared(job: Job, folder: Path) -> OnnxEngine:
    engine = OnnxEngine(files=GraphFiles([folder]))
    assert engine.prepare(job, build=True) is None
    return engine


def check(job: Job, engine: OnnxEngine, given: int = 2) -> None:
    past = engine.begin_past(job.paradigm, job.model, job.batch, job.total_frames, job.sampling)
    assert isinstance(past, GraphPast)
    plain, by_graph = roll(job, Engine(), given), roll(job, engine, given)
    assert plain.std() > 0.1
    assert (by_graph - plain).abs().max() <= 1e-5 * plain.abs().max()  # few steps of random weights make large tokens


@pytest.mark.parametrize("name", CASES)
def test_a_graph_gives_pytorchs_frames(make_model: Make, folder: Path, name: str) -> None:
    job = make_job(make_model, **CASES[name])
    check(job, prepared(job, folder))


def test_a_graph_serves_all_weights_temperatures_and_starts(make_model: Make, folder: Path) -> None:
    job = make_job(make_model)
    engine = prepared(job, folder)
    made = sorted(folder.iterdir())
    for given in (0, 1, 3):  # the first frame of a video from nothing is PyTorch's
        check(job, engine, given)
    with torch.no_grad():
        for weight in job.model.parameters():
            weight.mul_(1.01)
    check(job, engine)
    hot = Job(job.paradigm, job.model, None, Sampling(mask_steps=1, denoise_steps=3, temperature=0.5).resolve(
        job.model.diffusion_head
    ))  # fmt: skip
    check(hot, engine)
    assert sorted(folder.iterdir()) == made


def test_a_damaged_or_foreign_file_is_made_again(make_model: Make, folder: Path, tmp_path: Path) -> None:
    job = make_job(make_model)
    prepared(job, folder)
    name = step_name(job.model, step_forms(job)[0])
    files, path = GraphFiles([tmp_path]), GraphFiles._path(tmp_path, name)
    whole = GraphFiles._path(folder, name).read_bytes()
    for damaged in (b"", whole[:-100], whole[:-1] + b"\0", whole.replace(whole[:8], b"00000000")):
        path.write_bytes(damaged)
        assert files.read(name) is None
    other = make_job(make_model, sampling=Sampling(mask_steps=3, denoise_steps=2, refresh=4))
    prepared(other, folder)
    foreign = GraphFiles([folder]).read(step_name(other.model, step_forms(other)[1]))
    assert foreign is not None
    files.write(name, foreign)  # whole, of the right name, and of other inputs
    assert OnnxEngine(files=files).prepare(job, build=False)
    stages: list[str] = []
    engine = OnnxEngine(files=files, stage=stages.append)
    assert engine.prepare(job, build=True) is None
    assert stages[1:] == ["making the graph of a mask step, once for models of this kind"]
    assert files.read(name) != foreign
    check(job, engine)


def test_a_graph_with_another_result_is_not_used(make_model: Make, folder: Path, tmp_path: Path) -> None:
    """Its inputs, outputs and weights are the right ones; its sampler is another."""
    job = make_job(make_model, sampling=Sampling(mask_steps=1, denoise_steps=3, sampler="ddim"))
    other = make_job(
        make_model, sampling=Sampling(mask_steps=1, denoise_steps=3, sampler="dpmsolver++", first_step=950)
    )
    prepared(other, folder)
    graph = GraphFiles([folder]).read(step_name(other.model, step_forms(other)[0]))
    assert graph is not None
    files = GraphFiles([tmp_path])
    files.write(step_name(job.model, step_forms(job)[0]), graph)
    assert OnnxEngine(files=files).prepare(job, build=False)


def test_a_folder_that_cannot_be_written_is_done_without(make_model: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = make_job(make_model)
    check(job, prepared(job, tmp_path / "file" / "graphs"))


def test_a_killed_process_leaves_nothing_that_the_next_does_not_remove(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from magi_video.files import atomic
from magi_video.fast.onnx_graph import Graph, GraphFiles
write = Path.write_bytes
def slow(path, content):
    write(path, content[:10]); print("half", flush=True); time.sleep(60)
Path.write_bytes = slow
GraphFiles([Path({str(tmp_path)!r})]).write("name", Graph([], b"model"))
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=os.environ)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    files = GraphFiles([tmp_path])
    assert files.read("name") is None
    assert len(list(tmp_path.iterdir())) == 1
    graph = Graph(["a"], b"model")
    files.write("name", graph)
    assert [path.suffix for path in tmp_path.iterdir()] == [SUFFIX]
    assert files.read("name") == graph


def refused(make_model: Make) -> Iterator[tuple[Job, str]]:
    job = make_job(make_model)
    yield Job(job.paradigm, job.model.to(torch.bfloat16), None, job.sampling), "float32, and the weights are bfloat16"
    codes = make_model(head="categorical")
    sampling = Sampling(mask_steps=2).resolve(codes.diffusion_head)
    yield Job(make_paradigm("complete"), codes, None, sampling), "the model's is categorical"
    model = make_model(forcing="diffusion")
    sampling = Sampling(denoise_steps=2).resolve(model.diffusion_head)
    yield Job(make_paradigm("diffusion"), model, None, sampling), "diffusion generates in another way"
    model = make_model(forcing="raster")
    yield Job(make_paradigm("raster"), model, None, sampling), "raster generates in another way"


def test_what_graphs_do_not_cover_is_refused_if_asked_for_and_else_left_to_pytorch(
    make_model: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job, reason in refused(make_model):
        with pytest.raises(MagiError, match=reason):
            choose_engine("onnx", job, None, 100)
        engine, line = choose_engine("auto", job, None, 100)
        assert engine.name == "torch"
        assert line.startswith("engine torch: graphs")
        assert reason in line
    assert choose_engine("torch", make_job(make_model), None, 100)[1] == ""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
    with pytest.raises(MagiError, match="ONNX Runtime is not installed"):
        choose_engine("onnx", make_job(make_model), None, 100)
    assert choose_engine("auto", make_job(make_model), None, 100)[1] == ""


@pytest.mark.usefixtures("measured")
def test_auto_takes_the_quicker_one_where_the_job_is_long_enough(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path))
    job = make_job(make_model)
    seconds = {"torch": 0.1, "onnx": 0.05}
    monkeypatch.setattr(engine_choice, "frame_seconds", lambda _job, them, trials: [seconds[one.name] for one in them])
    assert choose_engine("auto", job, None, 20)[0].name == "torch"
    assert not list(tmp_path.rglob(f"*{SUFFIX}"))
    engine, line = choose_engine("auto", job, None, 10_000)
    assert engine.name == "onnx"
    assert line == "engine onnx: a frame in 50.0 ms by onnx, in 100.0 by torch"
    assert len(list(tmp_path.rglob(f"*{SUFFIX}"))) == 1
    assert choose_engine("auto", job, None, 100)[0].name == "onnx"  # graphs are there: 10 s are long enough
    monkeypatch.setenv("MAGI_PROBES", "off")
    engine, line = choose_engine("auto", job, None, 100)
    assert engine.name == "torch" and line == "engine torch: MAGI_PROBES=off"
    monkeypatch.setenv("MAGI_PROBES", "on")
    seconds["onnx"] = 0.1
    assert choose_engine("auto", job, None, 100)[0].name == "torch"


def test_what_is_done_before_the_first_frame_is_said(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path / "there"))
    job = make_job(make_model)
    said: list[str] = []
    stages: list[str] = []
    choose_engine("onnx", job, None, 100, said.append, stage=stages.append)
    making = "making the graph of a mask step, once for models of this kind"
    assert (said, stages) == ([], ["loading graphs for ONNX Runtime", making])
    stages.clear()
    choose_engine("onnx", job, None, 100, said.append, stage=stages.append)
    assert (said, stages) == ([], ["loading graphs for ONNX Runtime"])


def test_a_cache_that_cannot_be_used_is_said_once(
    make_model: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAGI_CACHE", str(tmp_path / "file" / "cache"))
    job = make_job(make_model)
    said: list[str] = []
    for _ in range(2):
        assert choose_engine("onnx", job, None, 100, said.append)[0].name == "onnx"
    (line,) = said
    assert line.startswith(f"{tmp_path}/file/cache: nothing can be kept there (Not a directory)")


def test_what_has_no_graph_is_pytorchs_and_said_once(make_model: Make, folder: Path) -> None:
    job = make_job(make_model)
    said: list[str] = []
    engine = OnnxEngine(files=GraphFiles([folder]), say=said.append)
    assert engine.prepare(job, build=True) is None
    said.clear()
    other = Job(
        job.paradigm, job.model, None, Sampling(mask_steps=5, denoise_steps=7).resolve(job.model.diffusion_head)
    )
    for _ in range(2):
        assert torch.equal(roll(other, engine), roll(other, Engine()))
    assert said == ["engine torch: there are no graphs for 5 mask × 7 denoise steps (ancestral) of one video"]


def test_the_decoder_is_a_graph_too(make_model: Make, folder: Path) -> None:
    vae = AutoencoderTiny(encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), latent_channels=3,
        num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1))  # fmt: skip
    job = make_job(make_model)
    job = Job(job.paradigm, job.model, ImageVAECodec.from_module(vae), job.sampling, 2)
    assert job.codec is not None
    engine = OnnxEngine(files=GraphFiles([folder]))
    engine._decoder(job.codec, job.latents()[:1], build=True)
    latents = [job.latents(), 2 * job.latents()]
    plain = torch.cat(list(Engine().decode_stream(job.codec, iter(latents))), dim=1)
    by_graph = torch.cat(list(engine.decode_stream(job.codec, iter(latents))), dim=1)
    assert plain.shape == (2, 2, 3, 16, 16)
    assert torch.allclose(by_graph, plain, atol=1e-5)
    job.codec.set_statistics([2.0] * 3, [3.0] * 3)  # buffers, of which sessions hold copies as of weights
    plain, by_graph = [next(one.decode_stream(job.codec, iter(latents))) for one in (Engine(), engine)]
    assert torch.allclose(by_graph, plain, atol=1e-5)
