"""Frames to begin from, in every type that a pipeline gives them back in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from magi_video import MagiVideoPipeline
from magi_video.errors import MagiError
from magi_video.pipeline.pictures import given_frames
from tests.pipeline.pipeline_examples import STEPS, picture, seeded

EIGHT_BITS = picture(0, 6, 10)  # [H, W, 3]
UNIT = (EIGHT_BITS / 255).astype(np.float32)
CLIP = np.stack([picture(seed, 6, 10) for seed in range(3)])  # [K, H, W, 3]
EXPECTED = torch.from_numpy(EIGHT_BITS).permute(2, 0, 1) / 127.5 - 1


def first(array: np.ndarray) -> torch.Tensor:
    """Channels first, as tensors have them."""
    return torch.from_numpy(np.moveaxis(array, -1, -3).copy())


@pytest.mark.parametrize(
    "image",
    [
        EIGHT_BITS, UNIT, UNIT.astype(np.float64), first(EIGHT_BITS), first(UNIT), first(UNIT).double(),
        first(UNIT).requires_grad_(), Image.fromarray(EIGHT_BITS), [Image.fromarray(EIGHT_BITS)], (UNIT,),
        [first(UNIT)], UNIT[None], first(UNIT)[None],
    ],
)  # fmt: skip
def test_a_picture_of_any_type_is_the_same_start(image: Any) -> None:
    given = given_frames(image, None, 6, 10)
    assert given is not None and given.dtype == torch.float32 and given.shape == (1, 1, 3, 6, 10)
    assert torch.allclose(given[0, 0], EXPECTED, atol=1e-6)


@pytest.mark.parametrize(
    "video",
    [
        CLIP, CLIP[None], (CLIP / 255).astype(np.float32), first(CLIP), first(CLIP)[None], first(CLIP) / 255,
        [Image.fromarray(one) for one in CLIP], [[Image.fromarray(one) for one in CLIP]], list(CLIP), [CLIP],
        list(first(CLIP)), [first(CLIP)], (list(first(CLIP)),),
    ],
)  # fmt: skip
def test_a_video_of_any_type_is_the_same_start(video: Any) -> None:
    given = given_frames(None, video, 6, 10)
    assert given is not None and given.shape == (1, 3, 3, 6, 10)
    assert torch.allclose(given[0], first(CLIP) / 127.5 - 1, atol=1e-6)


def test_a_batch_has_a_dimension_in_front_or_is_a_list() -> None:
    small = picture(5, 3, 5)
    for images in (CLIP, first(CLIP), list(CLIP), list(first(CLIP))):
        given = given_frames(images, None, 6, 10)
        assert given is not None and torch.allclose(given[:, 0], first(CLIP) / 127.5 - 1, atol=1e-6)
    for given in (given_frames([EIGHT_BITS, small], None, 6, 10), given_frames(None, [CLIP, CLIP[:, :3]], 6, 10)):
        assert given is not None and given.shape[0] == 2, "those of a list may differ in size"


WRONG: list[tuple[str, Any, str]] = [
    ("image", "first.png", r"image: expected PIL pictures, arrays or tensors \(read_image reads a file\), got str"),
    ("image", None, "image: expected PIL pictures, .* got NoneType"),
    ("image", EIGHT_BITS.astype(np.int64), r"image: pixels must be uint8, or .* in \[0, 1\]; got int64"),
    ("image", EIGHT_BITS > 100, "got bool"),
    ("image", torch.zeros(3, 6, 10, dtype=torch.int32), "got int32"),
    ("image", UNIT * 255, r"image: floating-point pixels must lie in \[0, 1\], got 0 to 249"),
    ("image", first(UNIT) * 2 - 1, r"must lie in \[0, 1\], got -1 to"),
    ("image", np.full_like(UNIT, np.nan), "must lie in .* got nan to nan"),
    ("image", np.moveaxis(EIGHT_BITS, -1, 0), r"image must be an array \[height, width, 3\] or .*; got \[3, 6, 10\]"),
    ("image", torch.from_numpy(EIGHT_BITS), r"or a tensor \[3, height, width\], .*; got \[10, 3, 6\]"),
    ("image", EIGHT_BITS[..., 0], r"got \[6, 10\]"),
    ("image", [CLIP], r"got \[3, 6, 10, 3\]"),
    ("image", CLIP[None], r"got \[1, 3, 6, 10, 3\]"),
    ("image", EIGHT_BITS[:0], r"got \[0, 10, 3\]"),
    ("image", [], "an empty list of first frames"),
    ("video", [], "an empty list of first frames"),
    ("video", [[]], "the frames of a video must have one size"),
    ("video", EIGHT_BITS, r"video must be an array \[frames, height, width, 3\] or a tensor \[frames, .*got \[6, 10"),
    ("video", Image.fromarray(EIGHT_BITS), r"got \[6, 10, 3\]"),
    ("video", CLIP * 1.0, r"video: floating-point pixels must lie in \[0, 1\]"),
    ("video", [CLIP, CLIP[:2]], "given videos must have as many frames each, got 3, 2"),
    ("video", [Image.new("RGB", (2, 2)), Image.new("RGB", (3, 2))], "the frames of a video must have one size"),
    ("video", [EIGHT_BITS, CLIP], r"got \[6, 10, 3\]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "given", "message"), WRONG)
def test_what_is_no_picture_is_refused_in_one_line(name: str, given: Any, message: str) -> None:
    image, video = ([given] if given is None else given, None) if name == "image" else (None, given)
    with pytest.raises(MagiError, match=message) as caught:
        given_frames(image, video, 6, 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("output_type", ["np", "pt", "pil"])
def test_a_video_goes_on_from_its_last_frame(output_type: str, make_pipeline: Callable[..., MagiVideoPipeline]) -> None:
    pipe = make_pipeline()
    frames = pipe(image=picture(), num_frames=3, generator=seeded(0), output_type=output_type, **STEPS).frames
    last = frames[0][-1]
    expected = pipe(image=picture(), num_frames=3, generator=seeded(0), output_type="pil", **STEPS).frames
    ways: list[dict[str, Any]] = [{"image": last}, {"image": [last]}, {"video": frames}, {"video": frames[0]}]
    if output_type != "pil":
        ways.append({"image": frames[:, -1]})
    for way in ways:
        used = (
            {"image": expected[0][-1]}
            if "image" in way
            else {"video": np.stack([np.array(one) for one in expected[0]])}
        )
        made, same = (pipe(**given, num_frames=4, generator=seeded(1), **STEPS).frames for given in (way, used))
        assert np.array_equal(made, same), way.keys()
    assert np.array_equal(
        pipe(image=[last, last], num_frames=2, generator=[seeded(1), seeded(2)], **STEPS).frames[0],
        pipe(image=last, num_frames=2, generator=[seeded(1)], **STEPS).frames[0],
    )
