from collections.abc import Callable

import pytest

from magi_video.codecs.pixels import PixelCodec
from magi_video.models.transformer import MagiVideoTransformer
from magi_video.pipeline.pipeline import MagiVideoPipeline


@pytest.fixture
def make_pipeline(make_model: Callable[..., MagiVideoTransformer]) -> Callable[..., MagiVideoPipeline]:
    def make(**changes: object) -> MagiVideoPipeline:
        codec = PixelCodec()
        codec.set_statistics([0.0] * 3, [0.5] * 3)
        pipeline = MagiVideoPipeline(
            make_model(**changes), codec, height=8, width=8, frame_rate=10.0, action_names=["LEFT", "RIGHT", "FIRE"]
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return make


@pytest.fixture
def pipe(make_pipeline: Callable[..., MagiVideoPipeline]) -> MagiVideoPipeline:
    return make_pipeline()
