"""Minari data sets (Farama) in HDF5: `data/main_data.hdf5`, an episode a group, observations that are pictures.

An episode of T actions has T + 1 observations; action t leads from observation t to the next, as in our recordings. A
discrete action becomes a column for each of its values. Needs h5py; minari itself is not loaded. Links to other files,
which HDF5 knows of several kinds, are refused.
"""

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from typing_extensions import override

from magi_video.data.actions import MAX_NAMES
from magi_video.data.walk import is_inside
from magi_video.errors import MagiError
from magi_video.files.json import parse_json, read_text
from magi_video.files.limits import MAX_EPISODE_BYTES, MAX_FRAMES, MAX_PIXELS
from magi_video.installation import install_command
from magi_video.recordings.importing import Source, check_rate, check_size, choose_camera

DEFAULT_RATE = 30.0
FRAMES_AT_ONCE = 64
MAX_CHUNK_BYTES = 2**28
MOST_TRIED = 100
"""Episodes that are looked at for one that is sound."""
PIECE_BYTES = 2**28
"""Of the frames that are read at once."""
NUMBER_BYTES = 8
"""Of a number of an action while it is read."""
OBSERVATIONS, ACTIONS = "observations", "actions"
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, SystemError, MemoryError)
"""What h5py raises, anywhere, over a file that is not as HDF5 should be."""
T = TypeVar("T")


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise MagiError(f"{path}: damaged HDF5 ({str(error)[:100]})") from None


def _checked(method: Callable[..., T]) -> Callable[..., T]:
    """A method of a source that tells of damage in a line."""

    @wraps(method)
    def checked(self: Any, *given: Any) -> T:
        with _told(self.path):
            return method(self, *given)

    return checked


class MinariSource(Source):
    """See the module. Arguments and errors as `open_source`."""

    def __init__(self, root: Path, camera: str | None, frame_rate: float | None) -> None:
        import h5py

        self.root, self.h5py = root, h5py
        self.path = root / "data" / "main_data.hdf5"
        if not self.path.is_file() or not is_inside(self.path, root):
            raise MagiError(f"{root}: no data/main_data.hdf5; expected a Minari data set in HDF5")
        try:
            self.file = h5py.File(self.path, "r")
        except DAMAGE as error:
            raise MagiError(f"{self.path}: unreadable HDF5 ({str(error)[:100]})") from None
        self.frame_rate = check_rate(DEFAULT_RATE if frame_rate is None else frame_rate, root)
        self._look(camera)

    @_checked
    def _look(self, camera: str | None) -> None:
        """Which episodes, pictures and actions there are."""
        self.num_episodes = sum(str(name).startswith("episode_") for name in self.file)
        if not self.num_episodes:
            raise MagiError(f"{self.path}: no episode")
        first = self._first_sound()
        self.camera = choose_camera(self._cameras(first), camera, self.path)
        stored = self._dataset(first, ACTIONS)
        self.discrete = stored.ndim == 1 and stored.dtype.kind in "iu"
        size = self._discrete_size() if self.discrete else int(np.prod(stored.shape[1:], dtype=np.int64))
        self.action_names = [f"action_{column}" for column in range(check_size(size, self.path))]

    def _first_sound(self) -> int:
        """The episode that says what all have: the first with pictures, and with actions that a recording can hold."""
        for episode in range(min(self.num_episodes, MOST_TRIED)):
            with suppress(MagiError):
                stored = self._dataset(episode, ACTIONS)
                if stored.ndim and np.prod(stored.shape[1:], dtype=np.float64) <= MAX_NAMES and self._cameras(episode):
                    return episode
        return 0

    @_checked
    @override
    def actions(self, episode: int) -> np.ndarray:
        """The last observation, which leads nowhere, has a row of zeros."""
        stored = self._dataset(episode, ACTIONS)
        size = len(self.action_names)
        numbers = stored.ndim and stored.dtype.kind in "fiub" and stored.dtype.itemsize <= 8
        columns = 1 if self.discrete else size
        too_large = len(stored) * size * NUMBER_BYTES > MAX_EPISODE_BYTES if numbers else False
        if not numbers or len(stored) > MAX_FRAMES or stored.size != len(stored) * columns or too_large:
            raise MagiError(
                f"{self.path}: episode {episode}: actions {stored.dtype} {stored.shape}; expected at most {MAX_FRAMES} "
                f"of {columns} numbers each, {MAX_EPISODE_BYTES} bytes in all"
            )
        values = self._read(stored, slice(None))
        if self.discrete:
            if values.ndim != 1 or values.min(initial=0) < 0 or values.max(initial=0) >= size:
                raise MagiError(f"{self.path}: episode {episode}: actions outside 0…{size - 1}")
            values = np.eye(size, dtype=np.float32)[values]
        values = values.reshape(len(values), -1).astype(np.float32)
        return np.concatenate([values, np.zeros((1, values.shape[1]), np.float32)])

    @override
    def frames(self, episode: int, count: int) -> Iterator[np.ndarray]:
        with _told(self.path):
            yield from self._frames(episode, count)

    def _frames(self, episode: int, count: int) -> Iterator[np.ndarray]:
        stored = self._dataset(episode, self.camera)
        if len(stored) < count:
            raise MagiError(f"{self.path}: episode {episode}: {len(stored)} observations for {count - 1} actions")
        if not self._shows_pictures(stored):
            raise MagiError(
                f"{self.path}: episode {episode}: observations {stored.dtype} {stored.shape} are no pictures"
            )
        at_once = FRAMES_AT_ONCE
        if stored.ndim > 1:
            at_once = max(1, min(at_once, PIECE_BYTES // int(np.prod(stored.shape[1:], dtype=np.int64))))
        for first in range(0, count, at_once):
            piece = self._read(stored, slice(first, min(first + at_once, count)))
            if stored.ndim == 1:
                piece = np.stack([self._decode(picture) for picture in piece])
            piece = piece[..., None] if piece.ndim == 3 else piece
            yield np.ascontiguousarray(np.broadcast_to(piece, (*piece.shape[:3], 3)))

    @_checked
    def _cameras(self, episode: int) -> list[str]:
        """Observations that are pictures: arrays uint8 [T, H, W], [T, H, W, 1 or 3], or JPEG files."""
        group = self._group(episode)
        kind = group.get(OBSERVATIONS, getclass=True)
        names = [OBSERVATIONS]
        if kind is self.h5py.Group:
            names = [f"{OBSERVATIONS}/{name}" for name in self._inner(group, OBSERVATIONS)]
        found = []
        for name in names:
            try:
                stored = self._dataset(episode, name)
            except MagiError:
                continue
            if self._shows_pictures(stored):
                found.append(name.replace("/", "."))
        return found

    def _shows_pictures(self, stored: Any) -> bool:
        """Whether an array holds pictures, of a size that they can have: its file may have but a few bytes of them."""
        if stored.ndim == 1:
            return bool(self.h5py.check_vlen_dtype(stored.dtype) == np.uint8)
        plain = stored.dtype == np.uint8 and (stored.ndim == 3 or (stored.ndim == 4 and stored.shape[3] in (1, 3)))
        return bool(plain and 0 < stored.shape[1] * stored.shape[2] <= MAX_PIXELS)

    def _inner(self, group: Any, name: str) -> list[str]:
        self._refuse_links(group, name)
        return [str(key) for key in group[name]]

    def _group(self, episode: int) -> Any:
        name = f"episode_{episode}"
        self._refuse_links(self.file, name)
        group = self.file[name]
        if not isinstance(group, self.h5py.Group):
            raise MagiError(f"{self.path}: {name} is no group")
        return group

    @_checked
    def _dataset(self, episode: int, name: str) -> Any:
        """An array of an episode, inside this very file."""
        place = self._group(episode)
        for part in name.replace(".", "/").split("/"):
            self._refuse_links(place, part)
            place = place[part]
        problem = None
        if not isinstance(place, self.h5py.Dataset):
            problem = "is no array"
        elif place.external or place.is_virtual:
            problem = "lies in another file"
        elif place.chunks and np.prod(place.chunks, dtype=np.float64) * place.dtype.itemsize > MAX_CHUNK_BYTES:
            problem = "has chunks that are too large"
        if problem:
            raise MagiError(f"{self.path}: episode {episode}: {name} {problem}")
        return place

    def _refuse_links(self, group: Any, name: str) -> None:
        link = group.get(name, getlink=True) if isinstance(group, self.h5py.Group) and name in group else None
        if not isinstance(link, self.h5py.HardLink):
            raise MagiError(f"{self.path}: {group.name}/{name} is missing, or a link")

    def _read(self, stored: Any, rows: slice) -> np.ndarray:
        try:
            return stored[rows]
        except (OSError, ValueError, RuntimeError) as error:
            raise MagiError(f"{self.path}: {stored.name} is damaged ({str(error)[:80]})") from None

    def _decode(self, picture: np.ndarray) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(picture.tobytes()), formats=["JPEG"]) as opened:
                if opened.width * opened.height > MAX_PIXELS:
                    raise ValueError("too large")
                return np.array(opened.convert("RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise MagiError(f"{self.path}: a picture that cannot be read ({str(error)[:80]})") from None

    def _discrete_size(self) -> int:
        """Number of a discrete action's values: what the data set says, or one more than the largest that occurs."""
        file = self.path.with_name("metadata.json")
        if file.is_file():
            try:
                space = parse_json(read_text(file)).get("action_space")
                space = json.loads(space) if isinstance(space, str) else space
                if isinstance(space, dict) and space.get("type") == "Discrete" and type(space.get("n")) is int:
                    return space["n"]
            except (ValueError, AttributeError, RecursionError):
                pass
        largest = 0
        for episode in range(self.num_episodes):
            with suppress(MagiError):  # an episode that cannot be read is left out when its turn comes
                stored = self._dataset(episode, ACTIONS)
                if stored.ndim == 1 and stored.dtype.kind in "iu" and len(stored) <= MAX_FRAMES:
                    largest = max(largest, int(self._read(stored, slice(None)).max(initial=0)))
        return 1 + largest


def open_source(root: Path, camera: str | None, frame_rate: float | None) -> MinariSource:
    """See `importing.open_source`."""
    try:
        import h5py  # noqa: F401
    except ImportError:
        raise MagiError(f"Minari data sets need h5py: {install_command('datasets')}") from None
    return MinariSource(root, camera, frame_rate)
