"""What visitors of the page send, and the headers and indices of weights: small things that are read by thousands."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from magi_video.files.weights import header_shapes, weight_files
from magi_video.models.conditions import ConditionSpec
from magi_video.sampling.sampling import Sampling
from magi_video.serving.bodies import parse_request
from magi_video.serving.limits import ServingLimits
from magi_video.serving.requests import FirstFrame, VideoRequest, stream_arguments, video_arguments
from magi_video.serving.uploads import Uploads
from magi_video.serving.websockets import PlayRequest
from magi_video.video.image import fit_frames
from tests.fuzz.corpus import Reader
from tests.fuzz.pictures import pictures


def world() -> Any:
    """As much of a pipeline as a request is checked against."""
    specs = {"text": ConditionSpec(8, "sequence", tokens=2), "label": ConditionSpec(2)}

    def check_interval(interval: int) -> None:
        assert isinstance(interval, int) and interval >= 1

    return SimpleNamespace(
        transformer=SimpleNamespace(check_interval=check_interval, condition_tokens=SimpleNamespace(specs=specs)),
        config=SimpleNamespace(class_names=["a", "b"], action_names=["LEFT", "RIGHT"]),
        codec=SimpleNamespace(temporal_factor=1),
        resolve=Sampling.complete,
    )


def make_orders(folder: Path) -> Reader:
    frames = [FirstFrame("One", fit_frames(pictures(1), 16, 16)[0])]
    uploads = Uploads(ServingLimits())
    token = uploads.add(fit_frames(pictures(6), 16, 16), "somebody").token
    common = {"frames": 12, "interval": 2, "speed": "balanced", "seed": 3, "guidance_scale": 2.5}
    orders = [
        common | {"first": 0, "actions": "LEFT*3 RIGHT+LEFT NONE*2", "label": 1},
        common | {"upload": token, "given": 3, "text": "a ball", "negative_text": "a cube"},
    ]
    names = []
    for number, order in enumerate(orders):
        (folder / f"{number}.json").write_text(json.dumps(order))
        names.append(f"{number}.json")

    def read(folder: Path, name: str) -> None:
        asked = parse_request((folder / name).read_bytes(), VideoRequest)
        arguments = video_arguments(asked, world(), frames, uploads, 240)
        assert 2 <= arguments["num_frames"] <= 240 and len(arguments.get("video", [])) <= 6

    return Reader(tuple(names), read)


def make_starts(folder: Path) -> Reader:
    message = {"first": 0, "interval": 2, "speed": "realtime", "seed": 0, "beside": "vizdoom/deathmatch", "label": 0}
    (folder / "a.json").write_text(json.dumps(message))
    frames = [FirstFrame("One", fit_frames(pictures(1), 16, 16)[0])]

    def read(folder: Path, name: str) -> None:
        asked = parse_request((folder / name).read_bytes(), PlayRequest)
        stream_arguments(asked, world(), frames, Uploads(ServingLimits()))

    return Reader(("a.json",), read)


def make_headers(folder: Path) -> Reader:
    save_file({"a.weight": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.int64)}, folder / "a.safetensors")

    def read(folder: Path, name: str) -> None:
        assert all(min(shape, default=0) >= 0 for _, shape in header_shapes(folder / name))

    return Reader(("a.safetensors",), read)


def make_names(folder: Path) -> Reader:
    names = {f"layer.{number}": f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total": 8}, "weight_map": names}))

    def read(folder: Path, name: str) -> None:
        assert all(file.parent == folder and file.suffix == ".safetensors" for file in weight_files(folder, "model"))

    return Reader(("model.safetensors.index.json",), read)
