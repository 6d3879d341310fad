"""`magi evaluate MODEL`: the options are the fields of `Evaluate`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from magi_video.cli.generate import pick_device
from magi_video.cli.parsing import parse
from magi_video.cli.progress import TaskDisplay
from magi_video.cli.score import tell
from magi_video.fast.precision import Precision


@dataclass(frozen=True)
class Evaluate:
    """Continue real clips with a model and score what comes of it: `samples/`, `metrics.json` and `report.html`.

    The same command continues a run that was stopped. Several processes, with the same figures: accelerate launch
    --multi_gpu --num_processes 2 -m magi_video evaluate … (so too on CPUs).
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """Folder, hub id, or the name of a shipped model ("doom", "atari")."""
    data: Path
    """Folder of real videos, or UCF-101 in its official layout."""
    out: Path
    """Folder for the results."""
    protocol: str = "small"
    """One of magi-ucf101, magi-ucf101-first-frame, magi-k600, stylegan-v, latte, videogpt, magvit, small."""
    num: int | None = None
    """Clips of both sides: fewer than the protocol asks for; the result says so."""
    num_real: int | None = None
    """Real clips, if not as many as --num."""
    context_frames: int | None = None
    """Frames given to the model, 0 for none; the protocol's own number if not said."""
    frames: int | None = None
    """Frames of each clip, given ones included, at least 10; the protocol's own number if not said."""
    interval: int | None = None
    """Frames of the real video from one frame to the next; the protocol's own number if not said."""
    setting: str = "exact"
    """Speed setting: exact, balanced, fast or realtime; the next five options override it."""
    mask_steps: int | None = None
    """Steps in which a frame's tokens appear."""
    denoise_steps: int | None = None
    """Steps of the diffusion head."""
    sampler: str | None = None
    """Of the head: ancestral, ddim, dpmsolver++ (epsilon head); euler, midpoint (flow head)."""
    first_step: int | None = None
    """Training step of the diffusion chain, 0…999, at which the sampler begins; 999 gives MAR's steps. Not said: the
    sampler's own (ancestral 990, ddim 950, dpmsolver++ 970)."""
    refresh: int | None = None
    """Mask steps from one that reads the whole frame to the next; in between only tokens that change are computed."""
    temperature: float = 1.0
    """Of the head's noise; 1 samples what the model learned."""
    precision: Precision = "auto"
    """Of all weights of the model; auto takes that of the samples there are, else the quicker one on this machine, and
    says which."""
    batch_size: int = 16
    """Videos made together."""
    seed: int = 0
    """Of sample 0; sample i has seed + i."""
    actions: bool = False
    """Give the model the recorded actions of the real clip; otherwise they are unknown to it."""
    labels: bool = False
    """Give the model the class of the real clip; otherwise it is unknown to it."""
    captions: bool = False
    """Give the model the caption of the real clip's video; otherwise it is unknown to it."""
    guidance_scale: float = 1.0
    """Of classifier-free guidance; 1 is none, any other doubles the work."""
    guidance_schedule: Literal["linear", "constant"] = "linear"
    """Of the scale: "linear", from 1 to it as a frame's tokens appear, or "constant"."""
    guide: tuple[Literal["label", "text", "action"], ...] = ("label", "text")
    """What guidance acts on."""
    fid: bool = True
    """Compute FID, overall and by frame."""
    lpips: bool = True
    """Compute LPIPS against the true continuation."""
    over_length: bool = True
    """Compute FVD of prefixes of the clips too."""
    baselines: bool = False
    """Score clips that need no model too: other real clips (the floor), the true ones through the codec, the first and
    the last given frame held, shuffled frames. Says where the model does not beat them."""
    cache: bool = True
    """Keep the features of real clips in $MAGI_CACHE (or ~/.cache/magi-video)."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Annotated[bool, arg(name="json")] = False
    """Print the content of metrics.json."""


def main(argv: list[str]) -> None:
    """Parse, generate, score, tell."""
    settings = parse(Evaluate, "magi evaluate", argv)
    from magi_video.evaluation.generation import Sampling, evaluate

    device = pick_device(settings.device)
    with TaskDisplay("loading the model") as bars:
        result = evaluate(
            settings.model,
            settings.data,
            settings.protocol,
            out=settings.out,
            num=settings.num,
            num_real=settings.num_real,
            context_frames=settings.context_frames,
            frames=settings.frames,
            interval=settings.interval,
            sampling=Sampling(
                settings.mask_steps,
                settings.denoise_steps,
                settings.sampler,
                settings.temperature,
                settings.batch_size,
                settings.seed,
                settings.actions,
                settings.labels,
                settings.setting,
                settings.precision,
                settings.refresh,
                settings.guidance_scale,
                settings.guidance_schedule,
                settings.guide,
                settings.captions,
                settings.first_step,
            ),
            fid=settings.fid,
            lpips=settings.lpips,
            over_length=settings.over_length,
            baselines=settings.baselines,
            cache=settings.cache,
            device=device,
            progress=bars.show,
            say=bars.say,
        )
    tell(result, settings.out, settings.json)
