"""What a stage of work leaves behind: a folder that follows from recorded inputs, made by one run at a time.

Recordings, codecs, latent caches, runs and evaluations are made by the same rules. A record, a JSON file of the folder,
says what it was made of. Other inputs are refused; the same ones go on where an earlier run stopped, or find the work
done. While a run is at work a lock keeps others out, and what a killed one left half-written is removed. What appears
under its name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magi_video.errors import MagiError
from magi_video.files.atomic import part_beside, set_usual_mode, write_json
from magi_video.files.json import read_json
from magi_video.files.lock import alone

if TYPE_CHECKING:
    from magi_video.distributed import Processes

Record = dict[str, Any]
"""JSON values by name."""
LONGEST_VALUE = 40
"""Characters of a value in a message."""


@dataclass(frozen=True)
class Artifact:
    """A folder and the record of what it was made of.

    Attributes:
        record: the JSON file, directly in the folder.
        holds: what the folder holds, for messages: "a run", "latents".
        lasting: the part of a record that may never change; all of it if not given.
        made: whether anything was made of the record yet. Before, the record may be replaced; afterwards it must be
            there. If not given, it is kept from the moment it is written.
    """

    record: Path
    holds: str
    lasting: Callable[[Record], Record] = dict
    made: Callable[[], bool] | None = None

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.record.parent

    def read(self) -> Record | None:
        """The record so far; None if there is none.

        Raises:
            MagiError: it is not a readable JSON object.
        """
        return read_json(self.record) if self.record.exists() else None

    def check(self, inputs: Record) -> Record | None:
        """The record so far, if what was made of it may be continued; None if nothing was made yet.

        Raises:
            MagiError: it was made of other inputs, or there is no record of what was made.
        """
        if self.made is not None and not self.made():
            return None
        saved = self.read()
        if saved is None and self.made is not None:
            raise MagiError(
                f"{self.folder} holds {self.holds} but no {self.record.name}, so nothing says how they were made; "
                "use another --out"
            )
        if saved is not None:
            self.compare(saved, inputs)
        return saved

    def compare(self, saved: Record, inputs: Record) -> None:
        """Raise a `MagiError` if a record, of the folder or of a part of it, is of other inputs."""
        now = _as_json(inputs)
        if changes := differences(self.lasting(saved), self.lasting(now), (saved, now)):
            raise MagiError(
                f"{self.folder} holds {self.holds} made with other settings ({'; '.join(changes)}); use another --out"
            )

    def settle(self, inputs: Record, carried: Callable[[Record | None], Record] = lambda saved: {}) -> Record:
        """Record what the folder is made of.

        Args:
            inputs: recipe and seed, or whatever else its content depends on.
            carried: from the record so far, what it holds besides the inputs; may refuse, by a `MagiError`.

        Returns:
            The record.

        Raises:
            MagiError: see `check`; or the record cannot be written.
        """
        saved = self.check(inputs)
        now = _as_json(inputs) | _as_json(carried(saved))
        if saved != now:
            write_json(self.record, now)
        return now

    @contextmanager
    def making(
        self,
        inputs: Record,
        processes: Processes | None = None,
        carried: Callable[[Record | None], Record] = lambda saved: {},
    ) -> Iterator[None]:
        """While entered, this run alone makes the folder, of these inputs.

        Args:
            inputs, carried: see `settle`.
            processes: of this run; all come together, and the main one locks and records for all.

        Raises:
            MagiError: another run is at work in the folder, or see `settle`; raised in every process.
        """
        with ExitStack() as held:

            def enter() -> None:
                held.enter_context(alone(self.folder))
                self.settle(inputs, carried)

            processes.once(enter) if processes else enter()
            yield

    def publish(self, write: Callable[[Path], Any], record: Record | None = None) -> None:
        """Put files into the folder, whole: written in a part of it first, the record last.

        So the record's presence says that all is there.

        Args:
            write: writes the files into the folder that it is given.
            record: of the artifact; `write` writes it itself if not given.

        Raises:
            OSError: they cannot be written.
        """
        part = part_beside(self.folder / "unfinished")
        shutil.rmtree(part, ignore_errors=True)
        try:
            part.mkdir(parents=True)
            write(part)
            if record is not None:
                write_json(part / self.record.name, record)
            for path in sorted(part.iterdir(), key=lambda path: path.name == self.record.name):
                set_usual_mode(path)
                os.replace(path, self.folder / path.name)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def differences(before: Record, now: Record, known: Collection[Record] = ()) -> list[str]:
    """What is not the same in two (nested) settings: "name before → now"; "group.name before → now" where several
    groups have a setting of that name.

    Args:
        before, now: the settings.
        known: records whose names count as well, though they are not compared.
    """
    groups: dict[str, set[str]] = {}
    for record in (before, now, *known):
        for group, name in _names(record):
            groups.setdefault(name, set()).add(group)
    return _differences(before, now, {name for name, found in groups.items() if len(found) > 1}, "")


def _names(record: Record, group: str = "") -> Iterator[tuple[str, str]]:
    """The group (the innermost; "" of none) and name of every setting."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _names(value, name)
        else:
            yield group, name


def _differences(before: Record, now: Record, ambiguous: Collection[str], group: str) -> list[str]:
    found = []
    for name in sorted({*before, *now}):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, ambiguous, name)
        elif a != b:
            full = f"{group}.{name}" if group and name in ambiguous else name
            found.append(f"{full} {_short(a)} → {_short(b)}")
    return found


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:12]}…"


def _as_json(values: Record) -> Record:
    """As they will be read: tuples become lists."""
    return dict(json.loads(json.dumps(values)))
