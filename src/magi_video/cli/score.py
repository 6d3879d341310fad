"""`magi score REAL FAKE`: the options are the fields of `Score`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from magi_video.cli.generate import pick_device
from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay, is_main_process


@dataclass(frozen=True)
class Score:
    """Compare generated clips with real ones, whoever made them: `metrics.json` and `report.html`.

    REAL is a folder of videos, from which the protocol takes its clips, or finished clips: a folder of .npy files
    (uint8, T×H×W×3) or one .npy file (N×T×H×W×3). FAKE is finished clips; a folder of videos is read from each first
    frame on, every frame. Prefer arrays: writing video files changes the score.
    """

    real: Annotated[Positional[Path], arg(metavar="REAL")]
    """Folder of videos or .npy files, or one .npy file."""
    fake: Annotated[Positional[Path], arg(metavar="FAKE")]
    """The same, generated."""
    out: Path
    """Folder for the results."""
    protocol: str = "small"
    """One of magi-ucf101, magi-ucf101-first-frame, magi-k600, stylegan-v, latte, videogpt, magvit, small."""
    num: int | None = None
    """Clips of both sides: fewer than the protocol asks for; the result says so."""
    num_real: int | None = None
    """Real clips, if not as many as --num."""
    paired: bool = False
    """Fake i continues real i (equal file names): PSNR, SSIM and LPIPS of the generated frames as well."""
    context_frames: int | None = None
    """Frames of each clip that were given to the model; the protocol's own number if not said."""
    frames: int | None = None
    """Frames of each clip to score, at least 10; the protocol's own number if not said."""
    fid: bool = True
    """Compute FID, overall and by frame."""
    lpips: bool = True
    """Compute LPIPS where --paired."""
    over_length: bool = True
    """Compute FVD of prefixes of the clips too."""
    cache: bool = True
    """Keep the features of real clips in $MAGI_CACHE (or ~/.cache/magi-video)."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Annotated[bool, arg(name="json")] = False
    """Print the content of metrics.json."""


def main(argv: list[str]) -> None:
    """Parse, score, tell."""
    settings = parse(Score, "magi score", argv)
    with TaskDisplay("loading PyTorch") as display:
        from magi_video.evaluation.scoring import score

        result = score(
            settings.real,
            settings.fake,
            settings.protocol,
            num=settings.num,
            num_real=settings.num_real,
            paired=settings.paired,
            context_frames=settings.context_frames,
            frames=settings.frames,
            out=settings.out,
            fid=settings.fid,
            lpips=settings.lpips,
            over_length=settings.over_length,
            cache=settings.cache,
            device=pick_device(settings.device),
            progress=display.show,
        )
    tell(result, settings.out, settings.json)


def tell(result: dict[str, Any], out: Path, as_json: bool) -> None:
    """Print the result: all of it as JSON, or its figures, warnings and files."""
    if not is_main_process():
        return
    if as_json:
        print(json.dumps(result))
        return
    low, high = result["fvd_interval"]
    lines = [f"FVD      {result['fvd']:g} (95 % interval {low:g} … {high:g})"]
    if result["fid"] is not None:
        lines.append(f"FID      {result['fid']:g}")
    for name, value in result.get("paired", {}).items():
        lines.append(f"{name.upper():8} {value:g}")
    lines.append(f"clips    {result['num_real']} real, {result['num_fake']} generated; {result['protocol']['name']}")
    for name, row in result.get("baselines", {}).items():
        lines.append(f"         FVD of {name.replace('_', ' ')}: {row['fvd']:g}")
    if given := result["given_frames_scored"]:
        lines.append(f"given    FVD and FID count the {given} given frame{'s' * (given > 1)} of each clip")
    lines += [f"warning  {text}" for text in result["warnings"]]
    lines.append(f"report   {out / 'report.html'}")
    lines.append(f"figures  {out / 'metrics.json'}")
    print("\n".join(lines))
