"""Captions are checked right after the videos: a refusal costs no training and changes nothing of a run."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from magi_video.data.captions import read_captions
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.pipeline.pipeline import MagiVideoPipeline
from magi_video.recipe import Preset
from magi_video.training.captions import find_texts
from magi_video.training.display import Silent
from magi_video.training.head_inputs import read_texts
from magi_video.training.run import train
from magi_video.video.video import write_video
from tests.training.conftest import moving_square, tiny_recipe


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def captioned(tokens: int = 3, encoder: str = "words") -> Preset:
    preset = tiny_recipe(steps=1, checkpoint_every=1)
    return replace(preset, model=replace(preset.model, text=True, text_encoder=encoder, text_tokens=tokens))


def write_data(folder: Path, *texts: str | bytes) -> Path:
    for number, text in enumerate(texts):
        write_video(folder / f"{number}.mp4", moving_square(12, number, 1), 10.0)
        (folder / f"{number}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Data, a run of one step on it, and what was said."""
    folder, notes = tmp_path_factory.mktemp("words"), Notes()
    data = write_data(folder / "data", "a red ball rolls left", "a ball", "the red ball is here")
    return data, train(captioned(), data, folder / "run", display=notes), notes.said


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("text", "encoder", "message"), [
    ("", "words", "no video has a caption"),
    ("", "some/encoder", "no video has a caption"),
    ("…!", "words", "1.txt: a caption without a word"),
    (b"\xff", "words", "1.txt: not a readable text file"),
    (b"\xff", "some/encoder", "1.txt: not a readable text file"),
    ("a" * 50_000, "words", "1.txt: larger than"),
    ("a" * 101, "words", "1.txt: a word of 101 letters"),
    (" ".join(f"w{n}" for n in range(1025)), "words", "1.txt: the captions have 1,025 different words"),
])  # fmt: skip
def test_unusable_captions_are_refused_before_anything_is_made(
    tmp_path: Path, text: str | bytes, encoder: str, message: str
) -> None:
    data = write_data(tmp_path / "data", "" if text == "" else "a ball", text)
    with pytest.raises(MagiError, match=re.escape(message)):
        train(captioned(encoder=encoder), data, tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").iterdir()} <= {"videos.json"}


def test_too_many_words_in_all_name_the_data_set(tmp_path: Path) -> None:
    texts = [" ".join(f"w{n}" for n in range(first, first + 600)) for first in (0, 600)]
    with pytest.raises(MagiError, match=r"data: the captions have 1,200 different words; .* 1 to 1,024"):
        train(captioned(), write_data(tmp_path / "data", *texts), tmp_path / "run")


@pytest.mark.parametrize("allowed", [False, True])
def test_refused_data_leaves_a_run_as_it_was(run: tuple[Path, Path, list[str]], tmp_path: Path, allowed: bool) -> None:
    _, out, _ = run
    before = contents(out)
    other = write_data(tmp_path / "other", "a red ball", "a purple ball" if allowed else "a ball")
    message = r"1\.txt: unknown words: purple; .* another --out for others" if allowed else "refused: give --allow"
    with pytest.raises(MagiError, match=message):
        train(captioned(), other, out, allow_other_data=allowed)
    assert contents(out) == before


def test_a_run_is_refused_without_its_vocabulary(run: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    data, out, _ = run
    shutil.copytree(out, tmp_path / "run")
    (tmp_path / "run" / "text_encoder" / "words.json").unlink()
    before = contents(tmp_path / "run")
    more = replace(captioned(), train=replace(captioned().train, steps=2))
    with pytest.raises(MagiError, match=r"words\.json: no such file; .* put it back, or use another --out"):
        train(more, data, tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_long_captions_are_counted(run: tuple[Path, Path, list[str]]) -> None:
    data, _, said = run
    line = "2 captions are longer than 3 words; the rest is not read"
    assert said.count(line) == 1 and said.index("captions: 3 of 3 videos") == said.index(line) - 1
    texts = find_texts(VideoFolder(data))
    assert texts.longer_than(5) is None
    (data / "1.txt").write_text("a ball of wool and of red wool")
    assert find_texts(VideoFolder(data)).longer_than(5) == "1 caption is longer than 5 words; the rest is not read"
    (data / "1.txt").write_text("a ball")


def test_distillation_names_the_file_of_unknown_words(run: tuple[Path, Path, list[str]], tmp_path: Path) -> None:
    data = VideoFolder(write_data(tmp_path / "data", "a red ball", "a purple ball"))
    with pytest.raises(MagiError, match=r"1\.txt: unknown words: purple"):
        read_texts(MagiVideoPipeline.from_pretrained(run[1]), data)


def test_a_caption_knows_its_line(tmp_path: Path) -> None:
    write_data(tmp_path, "beside", "")
    (tmp_path / "metadata.jsonl").write_text('\n{"file_name": "1.mp4", "text": "listed"}\n')
    assert read_captions(VideoFolder(tmp_path)).places == [
        str(tmp_path / "0.txt"), f"{tmp_path / 'metadata.jsonl'}: line 2",
    ]  # fmt: skip
