"""The model card and what is sent to the hub, all without a network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi, ModelCard

from magi_video.cli import main
from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.registry import load_codec
from magi_video.errors import MagiError
from magi_video.files.weights import SHIPPED, shipped_models
from magi_video.hub import push as hub
from magi_video.hub.card import model_card
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.description import Description, describe_model
from magi_video.pipeline.pipeline import MagiVideoPipeline

TRAINING = {
    "preset": {"data": {"dataset": "ucf101", "num_frames": 16}, "train": {"batch_size": 128, "learning_rate": 1e-4}},
    "steps": 7,
    "data": {"videos": 9537, "frames": 1_776_000},
}
METRICS = {
    "fvd": 123.4, "fid": None, "num_real": 64, "num_fake": 64, "paired": {"psnr": 20.5},
    "protocol": {"name": "small", "frames": 16, "interval": 2}, "warnings": ["64 clips are few"],
}  # fmt: skip


@pytest.fixture
def pipe(model: MagiVideoTransformer) -> MagiVideoPipeline:
    names = ["LEFT", "RIGHT", "FIRE"]
    return MagiVideoPipeline(model, PixelCodec(), height=8, width=8, action_names=names, training=TRAINING)


def card_of(pipe: MagiVideoPipeline, *arguments: Any) -> ModelCard:
    """The card of a model as its folder would describe it."""
    described = Description(dict(pipe.config), pipe.transformer.architecture, type(pipe.codec).__name__, 0)
    return model_card(described, pipe.codec, *arguments)


@pytest.fixture
def folder(pipe: MagiVideoPipeline, tmp_path: Path) -> Path:
    pipe.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_the_card_is_one_that_the_hub_reads(pipe: MagiVideoPipeline) -> None:
    card = card_of(pipe, "me/model", [METRICS], "apache-2.0", ["ucf101"])
    read = ModelCard(str(card))  # parses the metadata, strictly
    assert read.data.library_name == "magi-video" and read.data.pipeline_tag == "image-to-video"
    assert read.data.license == "apache-2.0" and read.data.datasets == ["ucf101"]
    assert "world-model" in (read.data.tags or [])
    (result,) = read.data.eval_results or []
    assert (result.metric_type, result.metric_value) == ("fvd", 123.4) and "small" in result.dataset_name
    metadata = yaml.safe_load(read.content.split("---")[1])
    assert metadata["model-index"][0]["name"] == "model"


def test_the_card_tells_what_the_model_records(pipe: MagiVideoPipeline) -> None:
    text = card_of(pipe, "me/model", [METRICS], None).text
    for told in ("UCF-101: 9,537 videos", "1,776,000 frames", "| Clips a step | 128 |", "`LEFT`, `RIGHT`, `FIRE`"):
        assert told in text
    assert "| small | 64 real, 64 generated | 16 × 2 | 123.4 | – | 20.5 |" in text and "64 clips are few" in text
    assert "No licence of the weights is stated." in text and "None recorded" in card_of(pipe, "me/model").text


def test_the_card_counts_in_words_and_names_what_there_is(
    pipe: MagiVideoPipeline, make_model: Callable[..., MagiVideoTransformer]
) -> None:
    text = card_of(pipe, "me/model").text
    assert "| 1 frame a latent frame;" in text and "| Intervals | 1…25 |" in text and "In sight" not in text
    games = {"preset": {"data": {}}, "data": {"games": ["procgen/coinrun"], "videos": 1}}
    model = make_model(max_interval=1)
    text = card_of(MagiVideoPipeline(model, PixelCodec(), height=8, width=8, training=games), "me/model").text
    assert "| Intervals | 1 |" in text and "procgen/coinrun: 1 video |" in text and "Procgen](https" in text


def test_the_card_names_the_frames_that_stay_in_sight(make_model: Callable[..., MagiVideoTransformer]) -> None:
    def kept(temporal_position: str, **sampling: int) -> list[str]:
        model = make_model(temporal_position=temporal_position)
        text = card_of(MagiVideoPipeline(model, PixelCodec(), height=8, width=8, sampling=sampling), "me/model").text
        return [line for line in text.splitlines() if "In sight" in line or line.startswith("- What leaves")]

    (line,) = kept("rope")
    assert "remembered for at most 5 frames" in line
    row, line = kept("rope", sink_frames=1)
    assert row == "| In sight | the first frame, the latest 4 frames |" and "the first frame, the latest 4" in line
    row, _ = kept("rope", sink_frames=2, strided_frames=1, past_stride=8)
    assert "the first 2 frames, of the older ones the latest one whose number is a multiple of 8, the latest 2" in row
    assert kept("interpolate") == []


def test_the_cards_snippet_runs(pipe: MagiVideoPipeline, folder: Path) -> None:
    text = card_of(pipe, str(folder)).text
    code = text.split("```python\n")[1].split("```")[0].replace("* 32", "* 2")
    code = code.replace("num_frames=32", "num_frames=2, denoise_steps=2")
    scope: dict[str, Any] = {}
    exec(code, scope)
    assert scope["video"].shape == (2, 8, 8, 3) and np.isfinite(scope["video"]).all()


@pytest.mark.parametrize("evil", [5, "five", {"a": 1}, [[]], True])
def test_a_record_of_other_types_makes_a_card(pipe: MagiVideoPipeline, evil: Any) -> None:
    pipe.register_to_config(training={"preset": {"data": evil, "train": evil}, "data": {"games": evil, "videos": evil}})
    text = card_of(pipe, "me/model", [METRICS | {"warnings": evil, "num_real": evil, "paired": evil}]).text
    assert "| Data | " in text and "| small | " in text


def test_recorded_words_cannot_write_the_card(pipe: MagiVideoPipeline) -> None:
    evil = 'x"\n---\nlicense: mit\n---\n<script>[a](http://b)|`'
    pipe.register_to_config(action_names=[evil], training={"preset": {"data": {}}, "data": {"games": [evil]}})
    card = card_of(pipe, "me/model", [METRICS | {"protocol": {"name": evil}, "warnings": [evil]}])
    assert card.data.license is None and "<script>" not in card.text and "](http://b)" not in card.text
    assert "\nlicense: mit" not in str(card)


def test_a_dry_run_writes_what_would_be_sent_and_it_loads(folder: Path, tmp_path: Path, capsys: Any) -> None:
    for private in ("run.json", "log.jsonl", "checkpoints/step_1/state.json", "codec/notes.txt"):
        (folder / private).parent.mkdir(parents=True, exist_ok=True)
        (folder / private).write_text("{}")
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps(METRICS))
    out = tmp_path / "out"
    command = ["push", str(folder), "me/model", "--dry-run", "--out", str(out), "--metrics", str(metrics)]
    assert main([*command, "--license", "apache-2.0", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert files == sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())
    assert set(files) == {
        "README.md", "metrics.json", "model_index.json", "codec/config.json",
        "transformer/config.json", "transformer/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    assert ModelCard.load(out / "README.md").data.license == "apache-2.0"
    assert MagiVideoPipeline.from_pretrained(out).config.action_names == ["LEFT", "RIGHT", "FIRE"]


class FakeHub:
    """Stands in for HfApi: keeps what it is given."""

    def __init__(self) -> None:
        self.repositories: list[tuple[str, bool | None]] = []
        self.files: dict[str, bytes] = {}
        self.messages: list[str] = []

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> str:
        self.repositories.append((repo_id, private))
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str, create_pr: bool | None) -> None:
        self.messages.append(commit_message)
        files = (file for file in folder_path.rglob("*") if file.is_file())
        self.files |= {file.relative_to(folder_path).as_posix(): file.read_bytes() for file in files}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub()
    monkeypatch.setattr(hub, "HfApi", lambda token: fake)
    return fake


def test_push_sends_the_model_and_its_card(folder: Path, fake: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(folder), "me/model", "--private", "--message", "First"]) == 0
    assert capsys.readouterr().out.strip() == "https://huggingface.co/me/model"
    assert fake.repositories == [("me/model", True)] and fake.messages == ["First"]
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert fake.files[weights] == (folder / weights).read_bytes()
    assert b'from_pretrained("me/model")' in fake.files["README.md"]


def test_a_pipeline_pushes_itself(pipe: MagiVideoPipeline, fake: FakeHub) -> None:
    assert pipe.push_to_hub("me/model", private=False, license_id="mit").endswith("me/model")
    assert fake.repositories == [("me/model", False)] and b"license: mit" in fake.files["README.md"]
    assert "model_index.json" in fake.files


def test_paths_of_the_makers_disk_stay_there(pipe: MagiVideoPipeline, tmp_path: Path) -> None:
    pipe.register_to_config(training=TRAINING | {"preset": {"codec": {"vae": str(tmp_path / "vae"), "subfolder": ""}}})
    pipe.save_pretrained(tmp_path / "model")
    hub.write_release(tmp_path / "model", tmp_path / "out", "me/model")
    assert not any(str(tmp_path) in file.read_text() for file in (tmp_path / "out").rglob("*.[jm][sd]*"))
    assert MagiVideoPipeline.from_pretrained(tmp_path / "out").config.training["preset"]["codec"]["vae"] == "vae"


def test_a_link_out_of_the_folder_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.safetensors").write_bytes(b"secret")
    (folder / "codec" / "more.safetensors").symlink_to(tmp_path / "secret.safetensors")
    with pytest.raises(MagiError, match="link out of the folder"):
        hub.write_release(folder, tmp_path / "out", "me/model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["not/an/id"], "no repository of the hub"),
        (["me/model", "--dry-run"], "--out go together"),
        (["me/model", "--out", "somewhere"], "--out go together"),
        (["me/model", "--dry-run", "--out", "{folder}"], "is not empty"),
        (
            ["me/model", "--dry-run", "--out", "{folder}/new", "--metrics", "{folder}/model_index.json"],
            "no metrics.json",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["push", str(folder), *(word.format(folder=folder) for word in words)]) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_a_hub_that_refuses_is_told_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("401 Client Error\nInvalid credentials")

    monkeypatch.setattr(HfApi, "create_repo", refuse)
    with pytest.raises(MagiError, match="the hub refuses \\(401 Client Error\\); hf auth login") as error:
        hub.push(folder, "me/model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", shipped_models())
def test_the_shipped_card_is_the_one_that_would_be_written_now(name: str) -> None:
    card = model_card(describe_model(name), load_codec(SHIPPED / name / "codec"), name, license_id="apache-2.0")
    assert (SHIPPED / name / hub.CARD).read_text(encoding="utf-8") == str(card)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("no network in these tests")

    monkeypatch.setattr(HfApi, "upload_folder", refuse)
