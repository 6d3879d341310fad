"""`magi import KIND DIR`: the options are the arguments of `open_source` and `import_dataset`."""  # noqa: N999

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from magi_video.cli.parsing import Check, OutFolder, arguments, check_given, parse
from magi_video.cli.progress import TaskDisplay
from magi_video.errors import counted


@dataclass(frozen=True)
class Import:
    """Convert an action data set of another project into a recording: videos with the actions beside them.

    Needs pyarrow (lerobot) or h5py (minari), the optional packages "datasets". The same command continues.
    """

    kind: Annotated[Positional[Literal["lerobot", "minari"]], arg(metavar="{lerobot,minari}")]
    """Layout of the data set: LeRobot v2.0 to v3.0, or Minari in HDF5."""
    folder: Annotated[Positional[Path], arg(metavar="DIR"), Check(check_given)]
    """Its folder."""
    out: OutFolder
    """Folder for the recording; new, empty, or begun by the same command."""
    camera: str | None = None
    """Which of its videos: the name, or its last part; not needed where there is one."""
    episodes: int | None = None
    """The first so many; all if not said."""
    height: int | None = None
    """Of a frame, in pixels; as it is if not said."""
    width: int | None = None
    """Of a frame, in pixels; as it is if not said."""
    frame_rate: float | None = None
    """Frames/s, where the data set does not say (Minari: 30)."""
    normalize: bool = False
    """Map each action column to −1…1 over the data set."""
    json: bool = False
    """Print the summary as JSON."""


def main(argv: list[str]) -> None:
    """Parse, convert, print."""
    settings = parse(Import, "magi import", argv)
    with TaskDisplay("reading the data set") as display:
        from magi_video.recordings.importing import import_dataset, open_source

        source = open_source(settings.kind, settings.folder, settings.camera, settings.frame_rate)
        summary = import_dataset(
            source,
            **arguments(settings, "kind", "folder", "camera", "frame_rate", "json"),
            progress=lambda done, total: display.show("importing episodes", done, total),
        )
    if settings.json:
        skipped = [{"episode": str(one.path), "reason": one.reason} for one in summary.skipped]
        print(json.dumps(asdict(summary) | {"skipped": skipped}, default=str))
        return
    print(
        f"{summary.folder}: {counted(summary.episodes, 'episode')}, {counted(summary.frames, 'frame')} "
        f"of {summary.camera} at {summary.frame_rate:g} frames/s, actions {', '.join(summary.action_names)}"
    )
    for one in summary.skipped:
        print(f"left out  {one.path.stem}: {one.reason}")
