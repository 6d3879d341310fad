"""Single pictures, and the two rules every picture and frame passes through: how it is resized and what range its
values have."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageOps

from magi_video.errors import MagiError
from magi_video.files.atomic import write_bytes
from magi_video.files.limits import MAX_PICTURE_BYTES, MAX_PIXELS

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")  # Pillow knows others that start programs


def read_image(path: str | Path) -> np.ndarray:
    """Reads a picture as uint8 [H, W, 3]; see `as_rgb`.

    Raises:
        MagiError: not a readable picture, values of unknown range, or larger than 2**25 pixels (checked before anything
            is decompressed).
    """
    path = Path(path)
    if not path.is_file():
        raise MagiError(f"{path}: {'not a regular' if path.exists() else 'no such'} file; expected a picture")
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise MagiError(f"{path}: larger than {MAX_PICTURE_BYTES} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes (the limit below is stricter) and of damaged tags
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise MagiError(
                        f"{path}: {image.width} x {image.height} pixels; expected at most {MAX_PIXELS} pixels"
                    )
                try:
                    return as_rgb(image)
                except MagiError as error:
                    raise MagiError(f"{path}: {error}") from None
    except MagiError:
        raise
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them stumble over
        raise MagiError(f"{path}: not a readable picture ({' '.join(str(error).split())[:200]})") from error


def as_rgb(image: Image.Image) -> np.ndarray:
    """A picture of Pillow's as uint8 [H, W, 3], RGB, the way it is looked at.

    It is turned upright by its EXIF tag and laid on white where it is transparent. 16 bits are scaled to 8, and so are
    floating-point numbers from 0 to 1.

    Raises:
        MagiError: its values are of a range that nothing tells.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint32) * 255 + 65535 // 2) // 65535
        return grey.astype(np.uint8)[..., None].repeat(3, axis=2)
    if image.mode == "F":
        values = np.asarray(image)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise MagiError("floating-point values outside 0 to 1; expected those, or 8 or 16 bits a channel")
        return (values * 255 + 0.5).astype(np.uint8)[..., None].repeat(3, axis=2)
    if image.mode == "I":
        raise MagiError("32-bit values, the range of which nothing tells; expected 8 or 16 bits a channel")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return np.array(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
    return np.array(image.convert("RGB"))


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] as a PNG file, completely or not at all.

    Raises:
        MagiError: the file cannot be written, or the array is not a picture.
    """
    path = Path(path)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise MagiError(f"{path}: the picture is {image.dtype} {image.shape}; expected uint8 [height, width, 3]")
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, format="png")
    write_bytes(path, encoded.getvalue())


def fit_frames(frames_THWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes frames by the project's one rule: centre crop to the target aspect, then antialiased bilinear.

    Args:
        frames_THWC: uint8 [T, H, W, 3], any size.
        height: of the result, in pixels.
        width: of the result, in pixels.

    Returns:
        uint8 [T, height, width, 3]; the very array that came in where the size is already right.
    """
    if height < 1 or width < 1:
        raise MagiError(f"size {height} x {width}; expected at least 1 x 1 pixels")
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[3] != 3:
        raise MagiError(
            f"frames are {frames_THWC.dtype} {frames_THWC.shape}; expected uint8 [frames, height, width, 3]"
        )
    given_height, given_width = frames_THWC.shape[1:3]
    if (given_height, given_width) == (height, width):
        return frames_THWC
    crop_width = min(given_width, max(1, round(given_height * width / height)))
    crop_height = min(given_height, max(1, round(given_width * height / width)))
    top, left = (given_height - crop_height) // 2, (given_width - crop_width) // 2
    cropped = frames_THWC[:, top : top + crop_height, left : left + crop_width]
    pixels = torch.from_numpy(np.ascontiguousarray(cropped)).permute(0, 3, 1, 2)
    # On uint8 torch works in integers, as Pillow does: ten times quicker than float32 and the same bits wherever it
    # runs.
    fitted = F.interpolate(pixels, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(fitted.permute(0, 2, 3, 1).numpy())


def to_model_range(frames: np.ndarray | torch.Tensor) -> torch.Tensor:
    """uint8 [..., H, W, 3] to the models' float32 [..., 3, H, W] in [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)) if isinstance(frames, np.ndarray) else frames
    return pixels.movedim(-1, -3).contiguous().float().div_(127.5).sub_(1.0)


def to_uint8(video: torch.Tensor) -> np.ndarray:
    """A model's [..., 3, H, W] in [-1, 1] to a uint8 array [..., H, W, 3]; values outside the range are clamped."""
    pixels = video.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
    return np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())


def spread_frames(num_frames: int, most: int) -> list[int]:
    """The numbers of at most `most` of a video's frames, evenly spaced, its first and last among them."""
    return np.linspace(0, num_frames - 1, min(most, num_frames)).round().astype(int).tolist()


def even_columns(frames: int, most: int) -> int:
    """Frames in a row of a contact sheet, `most` at most, so that its last row has as few empty places as can be.

    Of rows that do equally well the longest: of 10 columns 16 frames take 8, 30 take 10, and 11 take 6.
    """
    rows = -(-frames // most)
    while rows < frames and -frames % rows > -frames % (rows + 1) and -(-frames // (rows + 1)) > most // 2:
        rows += 1
    return -(-frames // rows)


def contact_sheet(
    videos: Sequence[np.ndarray],
    *,
    columns: int = 8,
    max_frames: int = 16,
    labels: Sequence[str] | None = None,
    numbers: Sequence[int] | None = None,
    min_side: int = 96,
) -> np.ndarray:
    """Frames of several videos as one picture, each with its frame number.

    Args:
        videos: uint8 arrays [T, H, W, 3]; each begins a new row.
        columns: frames in a row, at most: see `even_columns`.
        max_frames: at most so many frames of a video, see `spread_frames`.
        labels: a line of text above each video.
        numbers: what the frames are numbered where `videos` hold only some of a longer video; from 0 if not given.
        min_side: small frames are enlarged by a whole number until their short side has this many pixels.

    Returns:
        uint8 [height, width, 3].
    """
    if len(videos) == 0 or any(len(video) == 0 for video in videos):
        raise MagiError("a contact sheet of no frames; expected at least one frame of each video")
    if columns < 1 or max_frames < 1:
        raise MagiError(f"contact sheet of {columns} columns and {max_frames} frames; expected at least 1 of each")
    if labels is not None and len(labels) != len(videos):
        raise MagiError(f"{len(labels)} labels for {len(videos)} videos; expected one for each")
    if numbers is not None and any(len(video) != len(numbers) for video in videos):
        raise MagiError(f"{len(numbers)} frame numbers for {len(videos[0])} frames; expected one for each")
    columns = even_columns(max(min(len(video), max_frames) for video in videos), columns)
    blocks = []
    for i, video in enumerate(videos):
        label = None if labels is None else labels[i]
        named = range(len(video)) if numbers is None else numbers
        blocks.append(_sheet_block(video, named, columns, max_frames, label, min_side))
    width = max(block.shape[1] for block in blocks)
    return np.concatenate([np.pad(block, ((0, 0), (0, width - block.shape[1]), (0, 0))) for block in blocks])


def _sheet_block(
    video_THWC: np.ndarray, numbers: Sequence[int], columns: int, max_frames: int, label: str | None, min_side: int
) -> np.ndarray:
    from magi_video.video.video import enlarge  # PyAV, which a pipeline can do without

    picked = spread_frames(len(video_THWC), max_frames)
    tiles = [_numbered(enlarge(video_THWC[i], min_side), str(numbers[i])) for i in picked]
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[start : start + columns], axis=1) for start in range(0, len(tiles), columns)]
    if label is not None:
        strip = Image.new("RGB", (rows[0].shape[1], 16))
        ImageDraw.Draw(strip).text((3, 2), label, fill="white")
        rows.insert(0, np.array(strip))
    return np.concatenate(rows)


def _numbered(frame: np.ndarray, text: str) -> np.ndarray:
    image = Image.fromarray(frame)
    ImageDraw.Draw(image).text((2, 1), text, fill="white", stroke_width=1, stroke_fill="black")
    return np.array(image)
