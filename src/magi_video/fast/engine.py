"""What computes frames: an engine begins the past of a rollout and decodes latents. PyTorch is here."""

from collections.abc import Callable, Iterator
from typing import ClassVar

from torch import Tensor

from magi_video.codecs.base import Codec
from magi_video.fast.engine_name import EngineName
from magi_video.fast.speed import begin_past
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.paradigms.base import Paradigm
from magi_video.sampling.past import Past
from magi_video.sampling.sampling import ResolvedSampling

Say = Callable[[str], object]
"""Called with a line of news."""
Stage = Callable[[str], object]
"""Called with what begins to be done, where it takes seconds."""


class Engine:
    """PyTorch, by the fast path."""

    name: ClassVar[EngineName] = "torch"

    def begin_past(
        self,
        paradigm: Paradigm,
        model: MagiVideoTransformer,
        batch: int,
        total_frames: int | None,
        sampling: ResolvedSampling,
        use_cache: bool | None = None,
    ) -> Past:
        """See `fast.speed.begin_past`."""
        return begin_past(paradigm, model, batch, total_frames, sampling, use_cache)

    def decode_stream(self, codec: Codec, latents: Iterator[Tensor]) -> Iterator[Tensor]:
        """See `Codec.decode_stream`."""
        return codec.decode_stream(latents)
