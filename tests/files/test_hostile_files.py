"""Files made to cost memory, to reach out of their folder, or to be waited for without end."""

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from magi_video import MagiVideoPipeline
from magi_video.codecs.image_vae import ImageVAECodec
from magi_video.codecs.pixels import PixelCodec
from magi_video.codecs.registry import load_codec
from magi_video.data.actions import read_actions
from magi_video.data.ucf101 import UCF101
from magi_video.errors import MagiError
from magi_video.evaluation.clipset import as_clips
from magi_video.files.json import parse_json, read_json
from magi_video.files.limits import limit
from magi_video.files.weights import load_strictly
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.presets import load_preset
from magi_video.video.image import read_image
from tests.fuzz.readers import make_codecs, make_models, make_shards

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    make_models(tmp_path)
    return tmp_path


@pytest.fixture
def largest() -> Iterator[list[int]]:
    """The numbers of every parameter that is made outside the meta device."""
    seen = [0]

    def note(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            seen.append(parameter.numel())

    hook = register_module_parameter_registration_hook(note)
    yield seen
    hook.remove()


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 10**9},
        {"width": 2**16},
        {"depth": 10**6},
        {"depth": 2**16},
        {"depth": 3},
        {"mlp_width": 2**16},
        {"head_depth": 60_000},
        {"latent_height": 2**16, "latent_width": 2**16},
        {"conditions": {"action": {"size": 10**12, "kind": "vector"}}},
        {"conditions": {f"c{i}": {"size": 5} for i in range(1000)}},
        {"num_intervals": 10**12, "max_interval": 25},
        {"num_frames": 10**12},
        {"patch_size": 0},
        {"depth": -1},
        {"width": 16.0},
        {"width": True},
        {"quantization_config": {"quant_method": "bitsandbytes"}},
    ],
)
def test_a_transformer_of_other_sizes_is_refused_before_it_is_made(
    changes: dict[str, Any], model_folder: Path, largest: list[int]
) -> None:
    edit(model_folder / "transformer" / "config.json", **changes)
    with pytest.raises(MagiError):
        load_strictly(MagiVideoTransformer, str(model_folder / "transformer"))
    assert max(largest) < 10_000


@pytest.mark.parametrize(
    "changes",
    [
        {"encoder_block_out_channels": [10**6, 10**6]},
        {"num_encoder_blocks": [0, 10**9]},
        {"num_decoder_blocks": [10**9, 0]},
        {"latent_channels": 10**9},
    ],
)
def test_a_codec_of_other_sizes_is_refused_before_it_is_made(
    changes: dict[str, Any], tmp_path: Path, largest: list[int]
) -> None:
    make_codecs(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    edit(tmp_path / "config.json", vae_config=config["vae_config"] | changes)
    with pytest.raises(MagiError):
        load_codec(tmp_path)
    assert max(largest) < 10_000


def test_the_outline_costs_no_random_draw(model_folder: Path) -> None:
    states = []
    for load in (load_strictly, lambda one, folder: one.from_pretrained(folder)):
        torch.manual_seed(3)
        load(MagiVideoTransformer, str(model_folder / "transformer"))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 16},
        {"height": 10**9, "width": 10**9},
        {"height": "8"},
        {"mask_steps": 10**9},
        {"denoise_steps": 0},
        {"first_step": 1000},
        {"first_step": "990"},
        {"frame_rate": -1},
        {"action_names": ["A"]},
        {"action_names": ["A", "B\x1b[2J"]},
        {"class_names": ["one"]},
        {"training": [1]},
        {"forcing": "no such"},
        {"transformer": "../../x", "extra": 1},
    ],
)
def test_settings_that_do_not_fit_the_model(changes: dict[str, Any], model_folder: Path) -> None:
    edit(model_folder / "model_index.json", **changes)
    with pytest.raises(MagiError):
        MagiVideoPipeline.from_pretrained(model_folder)


def test_a_transformer_of_another_class_is_refused(model_folder: Path) -> None:
    edit(model_folder / "transformer" / "config.json", _class_name="DiTTransformer2DModel")
    with pytest.raises(MagiError, match="holds DiTTransformer2DModel; expected MagiVideoTransformer"):
        MagiVideoPipeline.from_pretrained(model_folder)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "..", "a/b.safetensors", 7])
def test_an_index_of_weights_stays_in_its_folder(name: object, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make_shards(folder)
    save_file({"a": torch.zeros(1)}, tmp_path / "outside.safetensors")
    index = folder / f"{WEIGHTS}.index.json"
    content = json.loads(index.read_text())
    load_strictly(MagiVideoTransformer, str(folder))
    content["weight_map"][sorted(content["weight_map"])[0]] = name
    index.write_text(json.dumps(content))
    with pytest.raises(MagiError, match=r"beside it|file names"):
        load_strictly(MagiVideoTransformer, str(folder))


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def overlapping(header: dict[str, Any]) -> None:
    first, second = sorted(set(header) - {"__metadata__"})[:2]
    header[second]["data_offsets"] = header[first]["data_offsets"]


def past_the_end(header: dict[str, Any]) -> None:
    header[sorted(set(header) - {"__metadata__"})[0]]["data_offsets"] = [0, 10**12]


def too_many_numbers(header: dict[str, Any]) -> None:
    header[sorted(set(header) - {"__metadata__"})[0]]["shape"] = [10**6, 10**6]


@pytest.mark.parametrize("change", [overlapping, past_the_end, too_many_numbers])
def test_headers_that_lie(change: Callable[[dict[str, Any]], None], model_folder: Path) -> None:
    path = model_folder / "transformer" / WEIGHTS
    header, data = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(MagiError, match="safetensors"):
        MagiVideoPipeline.from_pretrained(model_folder)


def test_a_header_that_claims_gigabytes(model_folder: Path) -> None:
    path = model_folder / "transformer" / WEIGHTS
    path.write_bytes((2**40).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(MagiError, match="header of"):
        MagiVideoPipeline.from_pretrained(model_folder)


def test_weights_larger_than_the_machine_are_told(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda name: 64)
    with pytest.raises(MagiError, match=r"needs .* GiB"):
        MagiVideoPipeline.from_pretrained(model_folder)


def test_pipes_are_not_waited_for(model_folder: Path) -> None:
    for name in ("transformer/" + WEIGHTS, "transformer/config.json", "model_index.json"):
        (model_folder / name).unlink()
        os.mkfifo(model_folder / name)
        with pytest.raises(MagiError, match="regular file"):
            MagiVideoPipeline.from_pretrained(model_folder)
    for suffix, read in ((".png", read_image), (".npy", as_clips), (".json", lambda p: load_preset(str(p)))):
        pipe = model_folder / f"pipe{suffix}"
        os.mkfifo(pipe)
        with pytest.raises(MagiError):
            read(pipe)
    os.mkfifo(model_folder / "a.actions.jsonl")
    with pytest.raises(MagiError, match="regular file"):
        read_actions(model_folder / "a.actions.jsonl", 3)


def test_linked_weights_are_read(model_folder: Path) -> None:
    # The hub's cache is made of links.
    path = model_folder / "transformer" / WEIGHTS
    path.rename(model_folder / "blob")
    path.symlink_to(model_folder / "blob")
    MagiVideoPipeline.from_pretrained(model_folder)


@pytest.mark.parametrize(
    "text", ["NaN", "[Infinity]", "1e999", "[" * 100_000, '{"a": 1, "a": 2}', "9" * 30, "9" * 10_000, "-1e999"]
)
def test_json_that_means_two_things_or_none(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
    path = tmp_path / "a.json"
    path.write_text(f'{{"data": {text}}}')
    for read in (read_json, lambda path: load_preset(str(path))):
        with pytest.raises(MagiError) as caught:
            read(path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_large_files_of_text_are_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # takes no place on the disk
    with pytest.raises(MagiError, match="larger than"):
        read_json(path)
    with pytest.raises(MagiError, match="larger than"):
        read_actions(path, 10)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def test_bombs_are_not_decompressed(tmp_path: Path) -> None:
    zeros = zlib.compress(bytes(2**26))
    bombs = {
        "size.png": png(60_000, 60_000, chunk(b"IDAT", zeros)),
        "text.png": png(1, 1, chunk(b"zTXt", b"a\0\0" + zeros), chunk(b"IDAT", zlib.compress(bytes(4)))),
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(x) print\n",
    }
    for name, content in bombs.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MagiError):
            read_image(tmp_path / name)


def test_broken_tags_are_no_reason_to_fail_or_to_warn(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    data = (tmp_path / "a.jpg").read_bytes()
    at = data.index(b"Exif") + 14
    for offset in range(0, 20):
        (tmp_path / "b.jpg").write_bytes(data[: at + offset] + b"\xff" + data[at + offset + 1 :])
        try:
            assert read_image(tmp_path / "b.jpg").size == 24
        except MagiError as error:
            assert "\n" not in str(error)
    assert not recwarn.list


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("raise SystemExit('unpickled')",)


def test_nothing_is_unpickled(tmp_path: Path, model_folder: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Evil()], dtype=object))
    np.savez(tmp_path / "zip.npz", a=np.zeros(3))
    (tmp_path / "zip.npz").rename(tmp_path / "b.npy")
    (tmp_path / "c.npy").write_bytes(pickle.dumps(Evil()))
    for name in "abc":
        with pytest.raises(MagiError, match=r"not a \.npy file"):
            as_clips(tmp_path / f"{name}.npy")
    weights = model_folder / "transformer" / WEIGHTS
    torch.save({"a": Evil()}, weights.with_name("diffusion_pytorch_model.bin"))
    torch.save({"a": Evil()}, weights)
    with pytest.raises(MagiError):
        MagiVideoPipeline.from_pretrained(model_folder)
    weights.unlink()
    with pytest.raises(MagiError, match="no diffusion_pytorch_model"):
        MagiVideoPipeline.from_pretrained(model_folder)


def test_lists_with_impossible_names_are_counted(tmp_path: Path) -> None:
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "loop.avi").symlink_to(tmp_path / "A" / "loop.avi")
    names = ["A/zero\0.avi", "A/" + "x" * 5000 + ".avi", "A/loop.avi", "A/../../etc/passwd", "/etc/passwd"]
    (tmp_path / "classInd.txt").write_text("1 A\n")
    (tmp_path / "trainlist01.txt").write_text("\n".join(names))
    videos = UCF101(tmp_path)
    assert len(videos.videos) == 0 and len(videos.skipped) == len(names)
    (tmp_path / "classInd.txt").write_text("9" * 5000 + " A\n")
    with pytest.raises(MagiError, match="expected lines like"):
        UCF101(tmp_path)


def test_limits_are_raised_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, expected in (("", 5), ("7", 7), ("0", 5), ("-3", 5), ("many", 5), ("9" * 40, 5)):
        monkeypatch.setenv("MAGI_MAX_THINGS", given)
        assert limit("MAX_THINGS", 5) == expected


def test_half_precision_and_extra_weights(tmp_path: Path) -> None:
    ImageVAECodec("AutoencoderTiny", TINY).half().save_pretrained(tmp_path)
    load_codec(tmp_path)
    save_file(load_file(tmp_path / WEIGHTS) | {"more": torch.zeros(9)}, tmp_path / WEIGHTS, {"format": "pt"})
    with pytest.raises(MagiError, match="unexpected"):
        load_codec(tmp_path)
    PixelCodec().save_pretrained(tmp_path / "pixels")
    assert isinstance(load_codec(tmp_path / "pixels"), nn.Module)


TINY = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (0, 1),
    "num_decoder_blocks": (1, 0),
}
