"""`magi score REAL FAKE`: the options are the fields of `Score`."""

import json
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from magi_video.cli.parsing import Check, Grouped, OutFolder, check_given, parse
from magi_video.cli.progress import TaskDisplay, is_main_process
from magi_video.errors import counted
from magi_video.evaluation.options import ScoreOptions
from magi_video.settings import settings


@settings
class Score:
    """Compare generated clips with real ones: `metrics.json` and `report.html`.

    REAL is a folder of videos, from which the protocol takes its clips, or finished clips: a folder of .npy files
    (uint8, T×H×W×3) or one .npy file (N×T×H×W×3). FAKE is finished clips; a folder of videos is read from each first
    frame on, every frame. Prefer arrays: writing video files changes the score.
    """

    real: Annotated[Positional[Path], arg(metavar="REAL"), Check(check_given)]
    """Folder of videos or .npy files, or one .npy file."""
    fake: Annotated[Positional[Path], arg(metavar="FAKE"), Check(check_given)]
    """The same, generated."""
    out: OutFolder
    """Folder for the results."""
    protocol: str = "small"
    """One of magi-ucf101, magi-ucf101-first-frame, magi-k600, stylegan-v, latte, videogpt, magvit, small."""
    paired: bool = False
    """Fake i continues real i (equal file names): PSNR, SSIM and LPIPS of the generated frames as well."""
    options: Grouped[ScoreOptions] = ScoreOptions()
    """What is compared, and by which figures."""
    json: bool = False
    """Print the content of metrics.json."""


def main(argv: list[str]) -> None:
    """Parse, score, print."""
    asked = parse(Score, "magi score", argv)
    with TaskDisplay("loading PyTorch") as display:
        from magi_video.evaluation.scoring import score
        from magi_video.files.cache import report_unusable_cache

        if asked.options.cache:
            report_unusable_cache(display.say)
        result = score(
            asked.real, asked.fake, asked.protocol, asked.options, paired=asked.paired,
            out=asked.out, progress=display.show,
        )  # fmt: skip
    print_result(result, asked.out, asked.json)


def print_result(result: dict[str, Any], out: Path, as_json: bool) -> None:
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
    if control := result.get("controllability"):
        low_high = control["interval"]
        sure = f" (95 % interval {low_high[0]:g} … {low_high[1]:g})" if low_high else ""
        lines.append(f"ΔPSNR    {control['delta_psnr']:g}{sure}, generated frame {control['frame']}")
    lines.append(f"clips    {result['num_real']} real, {result['num_fake']} generated; {result['protocol']['name']}")
    for name, row in result.get("baselines", {}).items():
        lines.append(f"         FVD of {name.replace('_', ' ')}: {row['fvd']:g}")
    if given := result["given_frames_scored"]:
        lines.append(f"given    FVD and FID count the {counted(given, 'given frame')} of each clip")
    lines += [f"warning  {text}" for text in result["warnings"]]
    lines.append(f"report   {out / 'report.html'}")
    lines.append(f"figures  {out / 'metrics.json'}")
    print("\n".join(lines))
