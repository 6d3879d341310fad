"""Options of scoring and of evaluating a model. Does not import PyTorch."""

from typing import Annotated

from pydantic import Field

from magi_video.evaluation.controllability import check_controllability
from magi_video.fast.engine_name import AskedEngine
from magi_video.fast.precision import Precision
from magi_video.models.architecture import ACTION, LABEL, TEXT, check_interval
from magi_video.pipeline.asked import check_controls, read_local
from magi_video.sampling.sampling import Sampling
from magi_video.settings import settings


@settings
class ScoreOptions:
    """What is compared, and by which figures."""

    num: int | None = None
    """Clips of both sides: fewer than the protocol asks for; the result says so."""
    num_real: int | None = None
    """Real clips, if not as many as of the others."""
    context_frames: int | None = None
    """Frames of each clip that are given to the model, 0 for none; the protocol's own number by default."""
    frames: int | None = None
    """Frames of each clip, given ones included, at least 10; the protocol's own number by default."""
    fid: bool = True
    """Compute FID, overall and by frame."""
    lpips: bool = True
    """Compute LPIPS of clips that continue real ones."""
    over_length: bool = True
    """Compute FVD of prefixes of the clips too."""
    cache: bool = True
    """Keep the features of real clips in $MAGI_CACHE (or ~/.cache/magi-video)."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPU threads: so many clips are computed side by side, one on each, and no figure depends on the number; all cores
    if not said."""


@settings
class EvaluateOptions(ScoreOptions):
    """How samples are made, besides what `ScoreOptions` says."""

    interval: int | None = None
    """Frames of the real video from one frame to the next; the protocol's own number by default."""
    sampling: Sampling = Sampling()
    """How a frame is sampled."""
    precision: Precision = "auto"
    """Of all weights of the model; auto takes that of the samples there are, else the quicker one on this machine, and
    says which."""
    engine: AskedEngine = "auto"
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Videos made together."""
    seed: int = 0
    """Seed of sample 0; sample i has seed + i."""
    actions: bool = False
    """Give the model the recorded actions of the real clip; otherwise they are unknown to it."""
    controllability: bool = False
    """Continue every clip under random actions too, and report ΔPSNR: how much nearer to the truth the recorded
    actions (--actions) bring the fourth generated frame, in dB (Genie). Doubles the work."""
    labels: bool = False
    """Give the model the class of the real clip; otherwise it is unknown to it."""
    baselines: bool = False
    """Score clips that need no model too: other real clips (the floor), the true ones through the codec, the first and
    the last given frame held, shuffled frames. Says where the model does not beat them."""
    captions: bool = False
    """Give the model the caption of the real clip's video; otherwise it is unknown to it."""

    def check_model(self, model: str) -> None:
        """Raise a `MagiError` unless a model on this machine takes interval and conditions; nothing is loaded."""
        if self.controllability:
            check_controllability(self.actions, self.context_frames)
        if (found := read_local(model)) is None:
            return
        _, architecture = found
        if self.interval is not None:
            check_interval(self.interval, architecture.max_interval)
        asked = {ACTION: self.actions, LABEL: self.labels, TEXT: self.captions}
        check_controls(architecture.specs, {name: True for name, wanted in asked.items() if wanted})
