"""A model on the Hugging Face hub: the files that are sent, its card among them, and sending them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # which it exports lazily

from magi_video.codecs.text_encoder import check_folder
from magi_video.data.walk import is_inside
from magi_video.errors import MagiError, first_line
from magi_video.files.atomic import scratch_folder, write_json
from magi_video.files.folders import ensure_folder
from magi_video.files.json import read_json
from magi_video.files.weights import resolve_model
from magi_video.hub.card import model_card
from magi_video.pipeline.description import ENCODER_FOLDER, describe_model
from magi_video.pipeline.saving import read_pipeline

SENT = (
    "model_index.json",
    *(f"transformer/{name}" for name in ("config.json", "*.safetensors", "*.index.json")),
    *(f"codec/{name}" for name in ("config.json", "*.safetensors", "*.index.json")),
    *(f"text_encoder/{name}" for name in ("*.json", "*.txt", "*.safetensors")),
    "metrics.json",
    "first_frame.png",
    "first_frames/*.png",
)
"""Files of a model's folder; a run has others, which stay where they are."""
CARD = "README.md"


def write_release(
    model: str | Path,
    out: Path,
    name: str,
    *,
    metrics: Sequence[Path] = (),
    license_id: str | None = None,
    datasets: Sequence[str] = (),
) -> list[Path]:
    """Write what a repository of a model holds.

    Args:
        model: folder (a run, too), hub id or shipped model; it is loaded, and so checked.
        out: folder for the files; empty or not there yet.
        name: by which the model will be loaded.
        metrics: `metrics.json` files of `magi evaluate`; if none is given, the one in the model's folder.
        license_id, datasets: see `model_card`.

    Returns:
        The files, relative to `out`.

    Raises:
        MagiError: the model, a metrics file or `out` is not as described.
    """
    folder = resolve_model(model)
    description = describe_model(folder)
    codec = read_pipeline(folder, torch.float32)["codec"]  # all weights are loaded, and so checked
    if (folder / ENCODER_FOLDER).is_dir():
        check_folder(folder / ENCODER_FOLDER)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MagiError(f"{out}: is not empty; expected a new folder")
    if not metrics and (folder / "metrics.json").is_file():
        metrics = [folder / "metrics.json"]
    results = [read_json(path) for path in metrics]
    for path, result in zip(metrics, results, strict=True):
        if not isinstance(result.get("protocol"), Mapping) or "fvd" not in result:
            raise MagiError(f"{path}: no metrics.json of `magi evaluate` or `magi score`")
    try:
        for pattern in SENT:
            for file in sorted(folder.glob(pattern)):
                if not is_inside(file, folder) and not is_inside(file, Path(HF_HUB_CACHE)):  # which is made of links
                    raise MagiError(f"{file}: link out of the folder")
                target = out / file.relative_to(folder)
                ensure_folder(target.parent)
                shutil.copyfile(file, target)
        index = read_json(out / "model_index.json")
        write_json(out / "model_index.json", index | {"training": _without_paths(index.get("training"))})
        for number, path in enumerate(metrics):
            shutil.copyfile(path, out / ("metrics.json" if number == 0 else f"metrics_{number}.json"))
        card = model_card(description, codec, name, results, license_id, datasets)
        (out / CARD).write_text(str(card), encoding="utf-8")
    except OSError as error:
        raise MagiError(f"{out}: cannot be written ({error.strerror or error})") from error
    return sorted(file.relative_to(out) for file in out.rglob("*") if file.is_file())


def _without_paths(value: Any) -> Any:
    """A recorded recipe with the last part of each path alone: where a VAE lay on a disk is nobody else's business."""
    if isinstance(value, dict):
        return {key: _without_paths(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_paths(one) for one in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~", "./", "../")) else value


def push(
    model: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    commit_message: str = "A model of magi-video",
    token: str | None = None,
    create_pr: bool = False,
    metrics: Sequence[Path] = (),
    license_id: str | None = None,
    datasets: Sequence[str] = (),
) -> str:
    """Send a model to the hub; returns its address there.

    Args:
        model: see `write_release`.
        repo_id: "user/name"; made if needed.
        private: whether a new repository is.
        commit_message: of the commit.
        token: of the hub; None for the one that `hf auth login` keeps.
        create_pr: open a pull request instead of committing.
        metrics, license_id, datasets: see `write_release`.

    Raises:
        MagiError: no such id, a model that cannot be loaded, or the hub refuses (nobody is logged in, say).
    """
    check_repo_id(repo_id)
    with scratch_folder("push") as folder:
        write_release(model, folder, repo_id, metrics=metrics, license_id=license_id, datasets=datasets)
        return send(folder, repo_id, private, commit_message, token, create_pr)


def send(
    folder: Path,
    repo_id: str,
    private: bool | None = None,
    commit_message: str = "A model of magi-video",
    token: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload a folder that `write_release` has written; arguments and errors as `push`."""
    api = HfApi(token=token)
    try:
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, create_pr=create_pr or None
        )
    except Exception as error:  # the hub client raises many kinds
        raise MagiError(
            f"{repo_id}: the hub refuses ({first_line(error)}); hf auth login tells it who you are"
        ) from error
    return str(address)


def check_repo_id(repo_id: str) -> None:
    """Refuse what cannot be a repository's id."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise MagiError(f"{repo_id!r} is no repository of the hub; expected user/name") from None
