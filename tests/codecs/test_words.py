"""The text encoder of learned words: its vocabulary, and a model that is trained, saved and asked with it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from magi_video import MagiVideoPipeline
from magi_video.cli import main
from magi_video.codecs.text_encoder import check_folder, copy_encoder, fetch_encoder, load_encoder
from magi_video.codecs.words import OneHot, WordEncoder
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.evaluation.generation import Generation
from magi_video.evaluation.options import EvaluateOptions
from magi_video.evaluation.protocols import PROTOCOLS
from magi_video.evaluation.realset import Pick
from magi_video.files.words import MOST_WORDS, holds_words, split_words, write_vocabulary
from magi_video.hub.card import usage
from magi_video.pipeline.description import describe_model, model_facts
from magi_video.presets import load_preset
from magi_video.recipe import Preset
from magi_video.serving.requests import find_text_problem
from magi_video.training.head_inputs import read_texts
from magi_video.training.run import train
from magi_video.video.video import write_video

CAPTIONS = ("a red video", "a blue video", "the video is green")
COLOURS = ((220, 40, 40), (40, 60, 220), (40, 200, 60))


@pytest.fixture
def encoder(tmp_path: Path) -> WordEncoder:
    return fetch_encoder("words", tmp_path / "words", CAPTIONS)  # type: ignore[return-value]


def test_words_are_those_of_the_captions(encoder: WordEncoder) -> None:
    assert encoder.words == ["a", "blue", "green", "is", "red", "the", "video"] and encoder.size == 7
    assert split_words("Ein ROTES Quadrat, 2× größer—\u2460!") == ["ein", "rotes", "quadrat", "2", "grösser", "1"]
    again = fetch_encoder("words", encoder.folder, ["other captions"])
    assert again.fingerprint() == encoder.fingerprint(), "what is there is taken up"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("लड़का का", ["लड\u093cका", "का"]),
        ("लड़की की", ["लड\u093cकी", "की"]),
        ("ภาพ\u200bแดง", ["ภาพ", "แดง"]),
        ("می\u200cرود", ["میرود"]),
        ("İstanbul", ["i\u0307stanbul"]),
        ("CAFÉ cafe\u0301 ca\u00adfé", ["café"] * 3),
        ("ΰ \u1fb3", ["\u03b0", "αι"]),
        ("\u0301a 1\ufe0f\u20e3 \u2764\ufe0f", ["a", "1"]),
    ],
)
def test_words_of_every_script_stay_whole(text: str, words: list[str]) -> None:
    assert split_words(text) == words


def test_a_word_of_a_vocabulary_is_one_word_again() -> None:
    random = np.random.default_rng(0)
    for _ in range(2000):
        for word in split_words("".join(map(chr, random.integers(32, 0x3000, 8)))):
            assert split_words(word) == [word] and word.isprintable()


@pytest.mark.parametrize("captions", [["می\u200cرود"], ["a red\nvideo"], ["red\u3000\u2764\u200d"], ["…", "red\ta"]])
def test_an_example_is_made_where_no_caption_can_be_printed(tmp_path: Path, captions: list[str]) -> None:
    write_vocabulary(captions, tmp_path)
    example = WordEncoder(tmp_path).example
    assert example.isprintable() and split_words(example) == split_words(captions[-1])


def test_captions_are_kept_as_numbers_of_words(encoder: WordEncoder) -> None:
    texts = ["the video is green", "red red blue", "a video"]
    for tokens in (1, 2, 6):
        kept = encoder.number(texts, tokens, torch.float16)
        assert kept.shape == (3, tokens, 7)
        expected = encoder.encode(texts, tokens).half()
        assert torch.equal(kept[torch.tensor([2, 0, 2])].nan_to_num(9), expected[[2, 0, 2]].nan_to_num(9))


def test_a_folder_has_one_encoder(encoder: WordEncoder, tmp_path: Path) -> None:
    other = tmp_path / "library"
    other.mkdir()
    (other / "config.json").write_text("{}")
    (other / "tokenizer.json").write_text("{}")
    save_file({"a": torch.zeros(1)}, other / "model.safetensors")
    out = tmp_path / "out"
    for folder in (encoder.folder, other, encoder.folder):
        copy_encoder(folder, out)
        assert {file.name for file in out.iterdir()} == {file.name for file in folder.iterdir()}
        assert holds_words(out) == (folder == encoder.folder)
    copy_encoder(other, out)
    assert isinstance(fetch_encoder("words", out, CAPTIONS), WordEncoder)
    assert [file.name for file in out.iterdir()] == ["words.json"]
    with pytest.raises(MagiError, match="the words that another model learned"):
        fetch_encoder(str(encoder.folder), tmp_path / "new", CAPTIONS)


def test_a_word_is_a_vector_of_its_own(encoder: WordEncoder) -> None:
    vectors = encoder.encode(["A red, RED video.", "the video is green"], 5)
    assert vectors.shape == (2, 5, 7) and vectors.dtype == torch.float32
    assert vectors[0, :4].argmax(-1).tolist() == [0, 4, 4, 6] and vectors[0, :4].sum() == 4
    assert vectors.isnan().all(-1).sum(1).tolist() == [1, 1]
    assert torch.equal(encoder.encode(["the video is green"], 2)[0], vectors[1, :2])
    assert encoder.encode(["red red blue"], 1)[0, 0].tolist() == pytest.approx([0, 1 / 3, 0, 0, 2 / 3, 0, 0])
    assert encoder.encode([], 3).shape == (0, 3, 7)
    assert encoder.encode([encoder.example], 1).isfinite().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a purple Video, purple and large",
            'unknown words: purple, and, large; this model learned a, blue, .* .such as "a red video"',
        ),
        ("…!", "without a word"),
        (" ", "some words"),
        (None, "some words"),
        ("a " * 6000, "12000 characters"),
    ],
)
def test_texts_it_cannot_read_are_refused(encoder: WordEncoder, text: Any, message: str) -> None:
    with pytest.raises(MagiError, match=message):
        encoder.encode([text], 4)


def vocabulary(words: object, example: object = "red") -> str:
    return json.dumps({"words": words, "example": example})


@pytest.mark.parametrize(
    "content",
    [
        "", "[]", "{}", vocabulary([]), vocabulary("red"), vocabulary([1]), vocabulary(["red", "blue"]),
        vocabulary(["red", "red"]), vocabulary(["Red"]), vocabulary(["a red"]), vocabulary([""]), vocabulary([None]),
        vocabulary(["\u202ered"]), vocabulary(["red\nMagiError"]), vocabulary(["../red"]), vocabulary(["a" * 101]),
        vocabulary([f"w{n:05d}" for n in range(MOST_WORDS + 1)]), '{"words": ["a"], "words": ["b"], "example": "a"}',
        '{"words": ["\\ud800"], "example": "a"}', "[" * 100_000, '{"words": ["a"]}', vocabulary(["a"], None),
        vocabulary(["a"], ""), vocabulary(["a"], "…"), vocabulary(["a"], "b"), vocabulary(["a"], "a\na"),
        vocabulary(["a"], "a " * 5001),
    ],
)  # fmt: skip
def test_hostile_vocabularies_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "words.json").write_text(content, encoding="utf-8")
    for refuses in (load_encoder, check_folder, lambda folder: copy_encoder(folder, tmp_path / "copy")):
        with pytest.raises(MagiError, match=r"words\.json"):
            refuses(tmp_path)
    assert not (tmp_path / "copy").exists()


def test_captions_that_are_not_of_few_words_need_another_encoder(tmp_path: Path) -> None:
    write_vocabulary([" ".join(f"w{n}" for n in range(MOST_WORDS))], tmp_path)
    assert load_encoder(tmp_path).size == MOST_WORDS
    for texts, message in (
        ([f"w{n}" for n in range(MOST_WORDS + 1)], "1,025 different words; .* 1 to 1,024: give another"),
        (["…"], "0 different words"),
        (["a" * 101], "a word of 101 letters"),
    ):
        with pytest.raises(MagiError, match=message):
            write_vocabulary(texts, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def recipe(**changes: Any) -> Preset:
    """Single frames of one colour, which only the caption tells."""
    preset = load_preset("tiny")
    return replace(
        preset,
        data=replace(preset.data, height=8, width=8, num_frames=1, max_interval=1),
        model=replace(preset.model, text=True, text_encoder="words", text_tokens=4, head="flow"),
        exposure=replace(preset.exposure, mask_ratio_min=1.0),
        train=replace(preset.train, sample_every=0, learning_rate=3e-3, log_every=1, **changes),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("captioned")
    for index in range(6):
        frame = np.broadcast_to(np.array(COLOURS[index % 3], np.uint8), (2, 8, 8, 3))
        write_video(folder / f"{index}.mp4", frame, 5.0, pixel_format="yuv444p")
        (folder / f"{index}.txt").write_text(CAPTIONS[index % 3])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A model of captioned colours."""
    with torch.random.fork_rng():
        return train(recipe(steps=110, batch_size=8), data, tmp_path_factory.mktemp("run") / "run")


def late_loss(run: Path) -> float:
    losses = [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
    return float(np.mean(losses[-10:]))


def test_captions_lower_the_loss(run: Path, data: Path, tmp_path: Path) -> None:
    preset = recipe(steps=110, batch_size=8)
    blind = replace(preset, model=replace(preset.model, text=False))
    without = late_loss(train(blind, data, tmp_path / "blind"))
    assert late_loss(run) < 0.9 * without


def test_the_words_choose_the_video(run: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)
    assert pipe.transformer.condition_tokens.specs["text"].size == 7

    def colour(text: str | None, **options: Any) -> np.ndarray:
        frames = pipe(num_frames=1, text=text, generator=torch.Generator().manual_seed(0), **options).frames
        return 255 * frames[0, 0].mean((0, 1))

    known = np.array(COLOURS)
    for index, caption in enumerate(CAPTIONS):
        for options in ({}, {"guidance_scale": 2.0}):
            distance = np.linalg.norm(known - colour(caption, **options), axis=1)
            assert distance.argmin() == index
    away = colour("red", guidance_scale=3.0, negative_text="blue")
    assert not np.array_equal(away, colour("red", guidance_scale=3.0))
    with pytest.raises(MagiError, match="unknown words: purple; this model learned a, blue"):
        colour("a purple video")
    assert find_text_problem(pipe) is None
    assert pipe.find_text_encoder() is pipe.find_text_encoder() is pipe.text_encoder


def test_distillation_reads_the_captions_as_the_model_does(run: Path, data: Path) -> None:
    pipe = MagiVideoPipeline.from_pretrained(run)
    table = read_texts(pipe, VideoFolder(data))
    assert isinstance(table.vectors_UKA, OneHot) and table.size == 7
    found = table.look_up(torch.tensor([5, 0]), 2)[:, 1]
    assert torch.equal(found.nan_to_num(9), pipe.encode_text([CAPTIONS[2], CAPTIONS[0]]).nan_to_num(9))


def test_evaluation_names_the_file_and_the_line_of_a_caption(run: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "data", ignore=shutil.ignore_patterns("4.txt", "5.txt"))
    names = {4: "a purple video", 5: "a red video"}
    lines = [json.dumps({"file_name": f"{name}.mp4", "text": text}) for name, text in names.items()]
    pipe = MagiVideoPipeline.from_pretrained(run)

    def captions(lines: list[str], *numbers: int) -> list[str] | None:
        (tmp_path / "data/metadata.jsonl").write_text("\n".join(lines))
        picks: Any = [Pick(number, 0) for number in numbers]
        protocol = replace(PROTOCOLS["small"], frames=1, given=0)
        options = EvaluateOptions(captions=True)
        return Generation(pipe, VideoFolder(tmp_path / "data"), picks, picks, protocol, options, tmp_path).captions

    assert captions(lines, 0, 5) == ["a red video", "a red video"]
    with pytest.raises(MagiError, match=r"metadata.jsonl: line 1: unknown words: purple; this model learned a, blue"):
        captions(lines, 0, 4)
    with pytest.raises(MagiError, match=r"metadata.jsonl: line 2 is not JSON"):
        captions([lines[0], "{"], 0)
    with pytest.raises(MagiError, match=r"5.mp4: no caption, which --captions asks for"):
        captions(lines[:1], 5)


def test_saved_copies_commands_and_the_page_have_the_words(run: Path, tmp_path: Path) -> None:
    MagiVideoPipeline.from_pretrained(run).save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy/text_encoder/words.json").read_bytes() == (run / "text_encoder/words.json").read_bytes()
    options = ["--frames", "1", "--text", "a red video", "--guidance-scale", "2"]
    main(["generate", str(tmp_path / "copy"), "--out", str(tmp_path / "out"), *options])
    assert json.loads((tmp_path / "out/generate.json").read_text())["settings"]["text"] == "a red video"
    assert model_facts(str(tmp_path / "copy"))["words"] == ["a", "blue", "green", "is", "red", "the", "video"]
    assert 'text="a blue video"' in usage(describe_model(tmp_path / "copy"), "name/model")
    (tmp_path / "copy/text_encoder/words.json").write_text(vocabulary(["a", "b"], "a b"))
    with pytest.raises(MagiError, match="an encoder of 2 numbers a word; expected 7"):
        MagiVideoPipeline.from_pretrained(tmp_path / "copy").encode_text(["a"])
    (tmp_path / "copy/text_encoder/words.json").write_text(vocabulary(3))
    assert "no vocabulary" in str(find_text_problem(MagiVideoPipeline.from_pretrained(tmp_path / "copy")))


def test_a_stopped_run_goes_on_with_its_words(data: Path, tmp_path: Path) -> None:
    whole = train(recipe(steps=4, batch_size=2, checkpoint_every=2), data, tmp_path / "whole")
    train(recipe(steps=2, batch_size=2, checkpoint_every=2), data, tmp_path / "parts")
    parts = train(recipe(steps=4, batch_size=2, checkpoint_every=2), data, tmp_path / "parts")
    one, other = (load_file(next((folder / "transformer").glob("*.safetensors"))) for folder in (whole, parts))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
