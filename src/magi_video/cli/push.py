"""`magi push MODEL REPO_ID`: the options are the fields of `Push`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from magi_video.cli.parsing import Model, OutFolder, parse


@dataclass(frozen=True)
class Push:
    """Send a model to the Hugging Face hub, with a model card written from what it records of its making."""

    model: Model
    """Folder (a run, too), hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    repo_id: Annotated[Positional[str], arg(metavar="REPO_ID")]
    """Where to: user/name; made if needed."""
    private: bool = False
    """Make a new repository private."""
    dry_run: bool = False
    """Send nothing: write into --out what would be sent, without any network."""
    out: OutFolder | None = None
    """With --dry-run: folder for the files, README.md among them; new or empty."""
    metrics: tuple[Path, ...] = ()
    """metrics.json files of `magi evaluate`, for the card; the model's own if none is named."""
    license: str | None = None
    """Of the weights, as the hub spells it: apache-2.0, cc-by-4.0, …"""
    datasets: tuple[str, ...] = ()
    """Hub ids of the training data."""
    message: str = "A model of magi-video"
    """Of the commit."""
    json: bool = False
    """Print JSON."""


def main(argv: list[str]) -> None:
    """Parse, write the files, send them."""
    settings = parse(Push, "magi push", argv)
    from magi_video.errors import MagiError
    from magi_video.hub.push import check_repo_id, push, write_release

    if settings.dry_run != (settings.out is not None):
        raise MagiError("--dry-run and --out go together: the folder for what would be sent")
    check_repo_id(settings.repo_id)
    facts: dict[str, Any] = {"metrics": settings.metrics, "license_id": settings.license, "datasets": settings.datasets}
    if settings.out is not None:
        files = write_release(settings.model, settings.out, settings.repo_id, **facts)
        written = {"folder": str(settings.out), "files": [str(file) for file in files]}
        print(json.dumps(written) if settings.json else "\n".join(str(settings.out / file) for file in files))
        return
    address = push(
        settings.model, settings.repo_id, private=settings.private or None, commit_message=settings.message, **facts
    )
    print(json.dumps({"address": address}) if settings.json else address)
