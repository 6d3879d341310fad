"""Folders of other projects: text encoders of transformers, data sets of LeRobot and Minari, captions."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

from magi_video.codecs.text_encoder import TextEncoder, load_encoder
from magi_video.data.captions import is_caption, read_captions
from magi_video.data.folder import VideoFolder
from magi_video.errors import MagiError
from magi_video.files.words import MOST_WORDS, write_vocabulary
from magi_video.recordings.importing import Source, open_source
from magi_video.video.video import write_video
from tests.fuzz.corpus import Reader
from tests.fuzz.pictures import FRAMES, pictures

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "ball"]


def make_captions(folder: Path) -> Reader:
    (folder / "train").mkdir()
    for name in ("a", "b", "c", "train/d"):
        write_video(folder / f"{name}.mp4", pictures(2), 5.0)
    (folder / "train" / "metadata.jsonl").write_text('\ufeff{"file_name": "./D.mp4", "text": "a square"}\n')
    (folder / "a.txt").write_text("a red ball\n that rolls")
    rows = [{"file_name": "b.mp4", "text": "a blue ball"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "metadata.csv").write_text('file_name,text\nc.mp4,"two balls, red"\n')
    videos = VideoFolder(folder)

    def read(folder: Path, name: str) -> None:
        captions = read_captions(videos)
        assert all(text is None or is_caption(text) for text in captions.texts) and captions.summary().isprintable()

    return Reader(("a.txt", "metadata.jsonl", "metadata.csv", "train/metadata.jsonl"), read)


def make_words(folder: Path) -> Reader:
    write_vocabulary(["a red ball rolls to the left", "zwei große Bälle, 2× blau", "球 rolls"], folder)

    def read(folder: Path, name: str) -> None:
        encoder = load_encoder(folder)
        assert 1 <= encoder.size <= MOST_WORDS and encoder.encode([encoder.example], 3)[:, 0].isfinite().all()

    return Reader(("words.json",), read)


def make_encoders(folder: Path) -> Reader:
    import transformers

    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizerFast(vocab={word: n for n, word in enumerate(WORDS)}).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder, max_shard_size="4KB")
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    names = ("config.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")

    def read(folder: Path, name: str) -> None:
        vectors = TextEncoder(folder).encode(["a red ball", "ball " * 40], 4)
        assert vectors.shape[:2] == (2, 4) and vectors[:, 0].isfinite().all()

    return Reader((*names, *shards[:1]), read)


def read_source(source: Source) -> None:
    """Every episode's actions and frames, as an import takes them; one that cannot be read costs itself alone."""
    usable, errors = 0, []
    for episode in range(min(source.num_episodes, 4)):
        try:
            actions_TA = source.actions(episode)
            frames = sum(len(piece) for piece in source.frames(episode, min(len(actions_TA), 64)))
            usable += frames > 0
        except MagiError as error:
            errors.append(error)
    if not usable:
        raise errors[0] if errors else MagiError("no episode")


def make_lerobot(folder: Path) -> Reader:
    import pyarrow
    from pyarrow import parquet

    camera, file = "observation.images.top", "chunk-{chunk_index:03d}/file-{file_index:03d}"
    info = {
        "codebase_version": "v3.0", "fps": 10, "total_episodes": 2, "chunks_size": 1000,
        "data_path": f"data/{file}.parquet", "video_path": f"videos/{{video_key}}/{file}.mp4",
        "features": {
            "action": {"dtype": "float32", "shape": [2], "names": {"motors": ["a", "b"]}},
            camera: {"dtype": "video", "shape": [32, 48, 3]},
        },
    }  # fmt: skip
    for name in ("meta/episodes/chunk-000", "data/chunk-000"):
        (folder / name).mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps(info))
    rows = [(episode, frame, [float(frame), -1.5]) for episode in (0, 1) for frame in range(FRAMES)]
    columns = list(zip(*rows, strict=True))
    table = {"episode_index": list(columns[0]), "frame_index": list(columns[1]), "action": list(columns[2])}
    parquet.write_table(pyarrow.table(table), folder / "data/chunk-000/file-000.parquet")
    write_video(folder / "videos" / camera / "chunk-000/file-000.mp4", pictures(2 * FRAMES), 10.0)
    zeros = [0, 0]
    episodes: dict[str, list[int] | list[float]] = {
        "episode_index": [0, 1], "length": [FRAMES, FRAMES], "data/chunk_index": zeros, "data/file_index": zeros,
    }  # fmt: skip
    episodes |= {f"videos/{camera}/{name}": zeros for name in ("chunk_index", "file_index")}
    episodes |= {f"videos/{camera}/from_timestamp": [0.0, FRAMES / 10]}
    episodes |= {f"videos/{camera}/to_timestamp": [FRAMES / 10, FRAMES / 5]}
    parquet.write_table(pyarrow.table(episodes), folder / "meta/episodes/chunk-000/file-000.parquet")
    files = ("meta/info.json", "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet")
    return Reader(files, lambda folder, name: read_source(open_source("lerobot", folder)))


def make_minari(folder: Path) -> Reader:
    import h5py

    (folder / "data").mkdir()
    with h5py.File(folder / "data/main_data.hdf5", "w") as file:
        for episode in range(2):
            group = file.create_group(f"episode_{episode}")
            group.attrs["total_steps"] = FRAMES - 1
            group["actions"] = np.zeros((FRAMES - 1, 2), np.float32)
            group.create_dataset("observations", data=pictures(FRAMES), chunks=(2, 32, 48, 3), compression="gzip")

    def read(folder: Path, name: str) -> None:
        # A file by another name each time: the library remembers an open one.
        place = folder.with_name(f"{folder.name}.now")
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        source = open_source("minari", place)
        try:
            read_source(source)
        finally:
            source.file.close()  # type: ignore[attr-defined]

    torch.set_num_threads(1)
    return Reader(("data/main_data.hdf5",), read)
