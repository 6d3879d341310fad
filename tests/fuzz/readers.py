"""What is fuzzed: for each reader a folder of real small files, which of them are damaged, and how they are read."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import save_torch_state_dict
from PIL import Image
from safetensors.torch import save_file

from magi_video import MagiVideoPipeline
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.registry import load_codec
from magi_video.data.actions import read_actions
from magi_video.data.folder import VideoFolder
from magi_video.data.kinetics import Kinetics600
from magi_video.data.ucf101 import UCF101
from magi_video.evaluation.clipset import as_clips
from magi_video.files.checkpoints import latest_checkpoint, save_checkpoint
from magi_video.files.json import read_json
from magi_video.files.weights import load_strictly
from magi_video.models.architecture import Architecture
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.presets import load_preset, tiny
from magi_video.video.image import read_image
from magi_video.video.video import inspect_video, read_frames
from tests.data.examples import set_matrix
from tests.fuzz.corpus import Reader
from tests.fuzz.folders import make_captions, make_encoders, make_lerobot, make_minari, make_words
from tests.fuzz.messages import make_headers, make_names, make_orders, make_starts
from tests.fuzz.pictures import FRAMES, encode, pictures


def make_corpus(root: Path, names: Iterable[str]) -> dict[str, Reader]:
    """Write the real files, a folder a reader."""
    for name in names:
        (root / name).mkdir(parents=True)
    return {name: MAKERS[name](root / name) for name in names}


# --- files ------------------------------------------------------------------------------------------------------------


def make_videos(folder: Path) -> Reader:
    kinds = {"a.mp4": "libx264", "b.avi": "mpeg4", "c.mkv": "libx264", "d.mpg": "mpeg2video", "e.ts": "libx264"}
    kinds |= {"f.avi": "mjpeg", "g.webm": "libvpx", "h.flv": "flv", "i.mp4": "mpeg4"}
    for name, codec in kinds.items():
        encode(folder / name, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p")
    encode(folder / "j.gif", "gif", "rgb8")
    encode(folder / "k.mp4", "libx264", count=70)  # long enough for a seek
    encode(folder / "l.mp4", "libx264", pixel=2)
    set_matrix(folder / "l.mp4", 0, 1, -1, 0)
    encode(folder / "m.mkv", "libx264", pixel=2)

    def read(folder: Path, name: str) -> None:
        info = inspect_video(folder / name)
        frames = read_frames(folder / name, [0, info.num_frames - 1], num_frames=info.num_frames)
        assert frames.shape == (2, info.height, info.width, 3)

    return Reader((*kinds, "j.gif", "k.mp4", "l.mp4", "m.mkv"), read)


def make_images(folder: Path) -> Reader:
    picture = Image.fromarray(pictures(1)[0])
    names = ["a.png", "b.jpg", "c.webp", "d.gif", "e.bmp", "f.tiff"]
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in names:
        picture.save(folder / name, **({"exif": exif} if name.endswith(("jpg", "webp", "png")) else {}))
    picture.convert("P").save(folder / "g.png")
    picture.save(folder / "h.tiff", compression="tiff_lzw")
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "i.png")
    Image.fromarray(deep.astype(np.float32) / 65535).save(folder / "j.tiff")
    Image.fromarray(np.dstack([pictures(1)[0], pictures(1)[0][..., 0]])).save(folder / "k.png")

    def read(folder: Path, name: str) -> None:
        assert read_image(folder / name).dtype == np.uint8

    return Reader((*names, "g.png", "h.tiff", "i.png", "j.tiff", "k.png"), read)


def make_json(folder: Path) -> Reader:
    (folder / "a.json").write_text(json.dumps({"a": [1, 2.5, "x", {"b": None}], "c": {"d": True}}))
    return Reader(("a.json",), lambda folder, name: check(read_json(folder / name)))


def check(content: dict[str, object]) -> None:
    json.dumps(content, allow_nan=False)


def make_presets(folder: Path) -> Reader:
    (folder / "a.json").write_text(json.dumps(asdict(tiny())))
    return Reader(("a.json",), lambda folder, name: check(asdict(load_preset(str(folder / name)))))


def make_actions(folder: Path) -> Reader:
    rows = [{"frame": i, "action": {"LEFT": 1, "SPEED": 0.5 * i}} for i in range(FRAMES)]
    (folder / "a.actions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recording.json").write_text(json.dumps({"action_names": ["LEFT", "RIGHT", "SPEED"]}))

    def read(folder: Path, name: str) -> None:
        track = read_actions(folder / "a.actions.jsonl", FRAMES)
        assert track.values.shape == (FRAMES, len(track.names)) and np.isfinite(track.values).all()

    return Reader(("a.actions.jsonl", "recording.json"), read)


def small_transformer(channels: int, size: int) -> MagiVideoTransformer:
    return MagiVideoTransformer(Architecture(
        latent_channels=channels, latent_height=size, latent_width=size, num_frames=4, width=16, depth=2, heads=2,
        mlp_width=32, head_width=16, head_depth=1,
        conditions={"noise_level": {"size": 6}, "action": {"size": 2, "kind": "vector", "drop": 0.1}},
    ))  # fmt: skip


def make_models(folder: Path) -> Reader:
    pipeline = MagiVideoPipeline(
        small_transformer(3, 8), PixelCodec(), height=8, width=8, action_names=["A", "B"], mask_steps=2, denoise_steps=2
    )
    pipeline.save_pretrained(folder)
    weights = "transformer/diffusion_pytorch_model.safetensors"
    files = ("model_index.json", "transformer/config.json", "transformer/config.json", weights, "codec/config.json")

    def read(folder: Path, name: str) -> None:
        pipe = MagiVideoPipeline.from_pretrained(folder)
        frames = pipe(num_frames=2, mask_steps=1, denoise_steps=1, generator=torch.Generator().manual_seed(0))
        assert frames.frames.shape == (1, 2, pipe.config.height, pipe.config.width, 3)

    return Reader(files, read)


def make_codecs(folder: Path) -> Reader:
    config = {
        "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "num_encoder_blocks": (0, 1),
        "num_decoder_blocks": (1, 0), "latent_channels": 4,
    }  # fmt: skip
    ImageVAECodec("AutoencoderTiny", config).save_pretrained(folder)

    def read(folder: Path, name: str) -> None:
        codec = load_codec(folder)
        assert codec.decode(codec.encode(torch.zeros(1, 1, 3, 8, 8))).shape == (1, 1, 3, 8, 8)

    return Reader(("config.json", "config.json", "diffusion_pytorch_model.safetensors"), read)


def make_shards(folder: Path) -> Reader:
    model = small_transformer(3, 8)
    model.save_config(folder)
    names = "diffusion_pytorch_model{suffix}.safetensors"
    save_torch_state_dict(model.state_dict(), folder, filename_pattern=names, max_shard_size="10KB")
    shards = sorted(file.name for file in folder.glob("*.safetensors"))
    index = "diffusion_pytorch_model.safetensors.index.json"
    return Reader((index, index, shards[0]), lambda folder, name: load_strictly(MagiVideoTransformer, str(folder)))


def make_arrays(folder: Path) -> Reader:
    np.save(folder / "a.npy", pictures(FRAMES)[None])

    def read(folder: Path, name: str) -> None:
        clips = as_clips(folder / name)
        assert clips.read(0, [0]).dtype == np.uint8

    return Reader(("a.npy",), read)


def make_ucf101(folder: Path) -> Reader:
    for name in ("A/v_A_g01_c01.avi", "A/v_A_g02_c01.avi", "B/v_B_g01_c01.avi"):
        (folder / "UCF-101" / name).parent.mkdir(parents=True, exist_ok=True)
        encode(folder / "UCF-101" / name, "mpeg4")
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("1 A\n2 B\n")
    (lists / "trainlist01.txt").write_text("A/v_A_g01_c01.avi 1\nB/v_B_g01_c01.avi 2\n")
    files = tuple(f"ucfTrainTestlist/{name}" for name in ("classInd.txt", "trainlist01.txt"))
    return Reader(files, lambda folder, name: summed(UCF101(folder, index=folder / "known.json")))


def make_kinetics(folder: Path) -> Reader:
    (folder / "train").mkdir()
    rows = ["label,youtube_id,time_start,time_end,split"]
    for name in ("aaaaaaaaaaa", "bbbbbbbbbbb"):
        encode(folder / "train" / f"{name}_000001_000011.mp4", "libx264")
        rows.append(f'"running, fast",{name},1,11,train')
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    return Reader(("train.csv",), lambda folder, name: summed(Kinetics600(folder, index=folder / "known.json")))


def make_index(folder: Path) -> Reader:
    encode(folder / "a.mp4", "libx264")
    VideoFolder(folder, index=folder / "videos.json")
    return Reader(("videos.json",), lambda folder, name: summed(VideoFolder(folder, index=folder / "videos.json")))


def summed(videos: VideoFolder) -> None:
    assert videos.summary() and sum(video.num_frames for video in videos.videos) >= 0


def make_checkpoints(folder: Path) -> Reader:
    tensors = {"model": {"a": torch.randn(8, 4), "b": torch.zeros(3)}, "ema": {"a": torch.randn(8, 4)}}
    for step in (1, 2):
        save_checkpoint(folder, step, tensors, {"preset": asdict(tiny()), "seed": 0, "codec": "abc"})
    files = tuple(f"step_00000002/{name}" for name in ("state.json", "model.safetensors", "ema.safetensors"))

    def read(folder: Path, name: str) -> None:
        found = latest_checkpoint(folder)
        assert found is not None  # the one before it, if need be
        for part in ("model", "ema"):
            assert dict(found.tensors(part))["a"].shape == (8, 4)

    return Reader(files, read)


def make_tensors(folder: Path) -> Reader:
    small_transformer(3, 8).save_pretrained(folder)
    save_file({"a": torch.zeros(2)}, folder / "other.safetensors")
    names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors", "other.safetensors")
    return Reader(names, lambda folder, name: load_strictly(MagiVideoTransformer, str(folder)))


MAKERS: dict[str, Callable[[Path], Reader]] = {
    "video": make_videos,
    "image": make_images,
    "json": make_json,
    "preset": make_presets,
    "actions": make_actions,
    "model": make_models,
    "codec": make_codecs,
    "shards": make_shards,
    "tensors": make_tensors,
    "array": make_arrays,
    "ucf101": make_ucf101,
    "kinetics": make_kinetics,
    "index": make_index,
    "checkpoint": make_checkpoints,
    "captions": make_captions,
    "words": make_words,
    "encoder": make_encoders,
    "lerobot": make_lerobot,
    "minari": make_minari,
    "header": make_headers,
    "names": make_names,
    "order": make_orders,
    "start": make_starts,
}
DEAR = ("video", "image", "model", "codec", "shards", "tensors", "checkpoint", "encoder", "lerobot", "minari")
"""Readers that decode, build models or open data sets; the others look at text and headers."""
SHARES = {"video": 6, "image": 6, "json": 2, "preset": 2, "actions": 4, "array": 3, "kinetics": 0.5, "ucf101": 0.2}
SHARES |= {"header": 3, "order": 3, "start": 3, "index": 0.2}
"""How often a reader's turn comes, if not once."""
