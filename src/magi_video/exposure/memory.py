"""Frames that stay in sight beyond the window of a long rollout: which they are, and where in time they are seen.

`Sampling.sink_frames`, `strided_frames` and `past_stride`. The cache that holds these frames is `fast/memory.py`.
"""

from dataclasses import dataclass
from itertools import islice

from magi_video.errors import MagiError
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.sampling import PAST_STRIDE, Sampling


@dataclass(frozen=True)
class FrameMemory:
    """The first frames and a strided past, in a part of the window; the latest frames have the rest.

    No more frames are in sight than without it, and they have consecutive positions up to the newest frame's: distances
    stay those of training, and cost and memory those of the window. As in StreamingLLM (Xiao et al. 2024), where the
    first tokens' positions close up to the latest; the strided past is that of Sparse Transformers (Child et al. 2019).
    While all frames fit, all are in sight: nothing differs from the window's rollout until then.

    Attributes:
        window: most frames in sight W, the newest one included.
        sink: first frames of the rollout that stay.
        strided: older frames that stay beside them, the latest of those whose number is a multiple of `stride`. At most
            W − 2 frames stay in all: the newest one and the one before it need the rest.
        stride: from one of them to the next, in frames.
    """

    window: int
    sink: int
    strided: int
    stride: int

    @classmethod
    def of(cls, window: int, sampling: Sampling) -> "FrameMemory | None":
        """What a sampling asks for in a window of so many frames; None for the latest frames alone."""
        sink, strided = sampling.sink_frames or 0, sampling.strided_frames or 0
        return cls(window, sink, strided, sampling.past_stride or PAST_STRIDE) if sink + strided else None

    @property
    def latest(self) -> int:
        """Frames in sight that follow each other up to the newest, once others have left the window."""
        return self.window - self.kept

    @property
    def kept(self) -> int:
        """Most frames that stay."""
        return self.sink + self.strided

    def seen_by(self, newest: int, before: list[int]) -> list[int]:
        """Numbers of the frames in sight of a frame, increasing, itself the last.

        Args:
            newest: its number.
            before: those in sight of the frame before it; none for the first frame.
        """
        frames = [*before, newest]
        if len(frames) > self.window:
            strided = self.sink
            while frames[strided] % self.stride == 0:
                strided += 1
            del frames[self.sink if strided > self.kept else strided]
        return frames

    def in_sight(self, newest: int) -> list[int]:
        """What `seen_by` comes to after all frames up to a newest one, without going through them.

        Returns:
            The sink, the strided past, and as many of the latest frames as are left of the window.
        """
        first = newest - self.latest + 1
        strided = range(-(-self.sink // self.stride) * self.stride, max(first, 0), self.stride)
        kept = {*range(min(self.sink, newest + 1)), *(strided[-self.strided :] if self.strided else ())}
        others = (frame for frame in range(newest, -1, -1) if frame not in kept)
        return sorted([*kept, *islice(others, self.window - len(kept))])

    @staticmethod
    def positions(frames: list[int]) -> list[int]:
        """Temporal positions at which the last of some frames sees them: consecutive, the last one's its number."""
        return list(range(frames[-1] - len(frames) + 1, frames[-1] + 1))


def find_memory(
    model: MagiVideoTransformer, paradigm: Paradigm, sampling: Sampling, total_frames: int | None = None
) -> FrameMemory | None:
    """The frames that a sampling keeps in sight beside the latest; None for no others.

    Args:
        model: the transformer.
        paradigm: as the sampling wants it.
        sampling: what is asked for.
        total_frames: of the rollout; None for one without end.

    Raises:
        MagiError: the model or the paradigm cannot, or too many are asked for.
    """
    if sampling.past_stride is not None and sampling.strided_frames is None:
        raise MagiError(
            "past_stride is the distance between strided_frames: give strided_frames, their number, as well"
        )
    memory = FrameMemory.of(model.config.num_frames, sampling)
    if memory is None:
        return None
    if model.config.temporal_position != "rope":
        raise MagiError(
            "sink_frames and strided_frames are for models with relative positions (temporal_position='rope'): "
            "this one always has its whole past in sight"
        )
    if not paradigm.frame_cache or paradigm.step_frames(model, 0, total_frames) > 1:
        raise MagiError(
            f"sink_frames and strided_frames need a paradigm that makes frames one by one over the frame cache; "
            f"{paradigm.name} generates in another way"
        )
    if memory.latest < 2:
        raise MagiError(
            f"sink_frames and strided_frames must leave 2 of the {memory.window} frames in sight for the latest ones: "
            f"{memory.window - 2} at most together; got {memory.sink} and {memory.strided}"
        )
    return memory
