import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from magi_video.errors import MagiError
from magi_video.pipeline.pictures import given_frames
from magi_video.video import image
from magi_video.video.image import contact_sheet, fit_frames, read_image, to_model_range, to_uint8, write_image


def test_pictures_round_trip(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    write_image(tmp_path / "new" / "a.png", picture)
    assert np.array_equal(read_image(tmp_path / "new" / "a.png"), picture)
    with pytest.raises(MagiError):
        write_image(tmp_path / "b.png", picture.astype(float))


def test_grey_and_transparent_pictures_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (5, 4)).save(tmp_path / f"{mode}.png")
        assert read_image(tmp_path / f"{mode}.png").shape == (4, 5, 3)


def ramp(height: int = 4, width: int = 256) -> np.ndarray:
    return np.arange(width, dtype=np.uint8)[None].repeat(height, axis=0)


@pytest.mark.parametrize(("name", "values"), [
    ("16.png", ramp().astype(np.uint16) * 257),
    ("16.tiff", ramp().astype(np.uint16) * 257),
    ("16_big.tiff", (ramp().astype(np.uint16) * 257).astype(">u2")),
    ("float.tiff", ramp().astype(np.float32) / 255),
])  # fmt: skip
def test_deeper_pictures_are_scaled_to_8_bits(name: str, values: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert np.abs(read_image(tmp_path / name).astype(int) - ramp()[..., None]).max() <= 1


@pytest.mark.parametrize(
    "values",
    [
        ramp().astype(np.float32),
        ramp().astype(np.float32) / 255 - 0.1,
        np.full((4, 4), np.nan, np.float32),
        np.full((4, 4), np.inf, np.float32),
        ramp().astype(np.int32),
    ],
)
def test_values_of_unknown_range_are_refused(values: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(MagiError, match=r"a\.tiff: .*; expected .*8 or 16 bits a channel") as caught:
        read_image(tmp_path / "a.tiff")
    assert "\n" not in str(caught.value)


def test_pictures_of_16_bits_a_colour_are_read(tmp_path: Path) -> None:
    colours = np.stack([ramp(), ramp()[:, ::-1], 255 - ramp() // 2], -1)
    rows = [b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in colours]

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", colours.shape[1], colours.shape[0], 16, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(b"".join(rows))), chunk(b"IEND", b"")]
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    assert np.abs(read_image(tmp_path / "a.png").astype(int) - colours).max() <= 1


def test_what_is_transparent_shows_white(tmp_path: Path) -> None:
    alpha = np.full((4, 256), 255, np.uint8)
    alpha[:, :128] = 0
    Image.fromarray(np.dstack([ramp(), ramp(), ramp(), alpha])).save(tmp_path / "a.png")
    Image.fromarray(np.dstack([ramp(), alpha])).save(tmp_path / "b.png")
    palette = Image.fromarray(ramp()).convert("P")
    palette.save(tmp_path / "c.png", transparency=bytes([0] * 128 + [255] * 128))
    expected = np.where(alpha > 0, ramp(), 255)[..., None].repeat(3, 2)
    for name in ("a.png", "b.png", "c.png"):
        assert np.array_equal(read_image(tmp_path / name), expected), name


def test_a_picture_is_held_as_its_tag_says_also_when_given_open(tmp_path: Path) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to look at it
    Image.fromarray(np.rot90(upright)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), upright)
    with Image.open(tmp_path / "a.png") as opened:
        given = given_frames(opened, None, 16, 24)
    assert given is not None and np.array_equal(to_uint8(given)[0, 0], upright)


def test_bad_pictures_are_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "large.png", np.zeros((40, 50, 3), dtype=np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "large.png").read_bytes()[:60])
    monkeypatch.setattr(image, "MAX_PIXELS", 1999)
    for name in ("large.png", "text.png", "cut.png", "missing.png", "."):
        with pytest.raises(MagiError) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_fit_keeps_what_fits_and_crops_the_centre() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    assert fit_frames(frames, 8, 8) is frames
    wide = np.zeros((1, 10, 30, 3), dtype=np.uint8)
    wide[:, :, 10:20] = 100
    assert (fit_frames(wide, 5, 5) == 100).all()
    assert (fit_frames(wide.transpose(0, 2, 1, 3), 20, 20) == 100).all()
    assert fit_frames(wide, 7, 13).shape == (1, 7, 13, 3)
    assert fit_frames(np.zeros((1, 1, 300, 3), dtype=np.uint8), 64, 64).shape == (1, 64, 64, 3)


def test_fit_is_antialiased_bilinear() -> None:
    stripes = np.zeros((1, 64, 64, 3), dtype=np.uint8)
    stripes[:, :, ::2] = 255
    inner = fit_frames(stripes, 8, 8)[:, :, 1:-1]
    assert (np.abs(inner.astype(int) - 127) < 6).all()  # plain bilinear would give 0 or 255
    picture = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    by_pillow = np.array(Image.fromarray(picture).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(fit_frames(picture[None], 16, 16)[0].astype(int) - by_pillow).max() <= 1


def test_model_range_round_trips_every_value() -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    video = to_model_range(frames)
    assert video.shape == (1, 3, 16, 16) and video.dtype == torch.float32
    assert video.min() == -1 and video.max() == 1
    assert np.array_equal(to_uint8(video), frames)
    assert np.array_equal(to_uint8(to_model_range(torch.from_numpy(frames))), frames)
    assert to_uint8(torch.tensor([[[[-9.0]], [[9.0]], [[0.0]]]])).tolist() == [[[[0, 255, 128]]]]


def test_rows_of_a_contact_sheet_are_filled() -> None:
    from magi_video.video.image import even_columns

    assert [even_columns(frames, 10) for frames in (1, 10, 16, 21, 28, 30)] == [1, 10, 8, 7, 7, 10]
    for frames in range(1, 31):
        columns = even_columns(frames, 10)
        assert columns <= 10 and -frames % columns <= 2  # of 10 columns up to 9 places would be empty


def test_contact_sheet_shows_first_and_last_frames() -> None:
    video = np.zeros((31, 24, 32, 3), dtype=np.uint8)
    video[0, 12:], video[30, 12:] = (200, 0, 0), (0, 200, 0)
    sheet = contact_sheet([video, video[:3]], columns=4, max_frames=6, labels=["one", "two"], min_side=48)
    assert sheet.dtype == np.uint8 and sheet.shape == (16 + 2 * 48 + 16 + 48, 3 * 64, 3)
    assert tuple(sheet[16 + 40, 40]) == (200, 0, 0)
    assert tuple(sheet[16 + 48 + 40, 2 * 64 + 40]) == (0, 200, 0)  # the sixth frame: second row, third column
    assert (video[5] == 0).all()  # the given frames are not drawn on
    for bad in ([], [video[:0]]):
        with pytest.raises(MagiError):
            contact_sheet(bad)


@pytest.mark.parametrize("count", [1, 5, 6, 7, 40])
def test_a_contact_sheet_of_kept_frames_is_that_of_the_whole_video(count: int) -> None:
    videos = np.random.default_rng(0).integers(0, 256, (2, count, 24, 32, 3), dtype=np.uint8)
    numbers = image.spread_frames(count, 6)
    assert len(numbers) == min(count, 6) and numbers[0] == 0 and numbers[-1] == count - 1
    kept = contact_sheet(list(videos[:, numbers]), columns=3, max_frames=6, numbers=numbers)
    assert np.array_equal(kept, contact_sheet(list(videos), columns=3, max_frames=6))
    with pytest.raises(MagiError, match="frame numbers"):
        contact_sheet(list(videos), numbers=[*numbers, 99, 100])
