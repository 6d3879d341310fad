"""How much the page lets anyone ask for. Every number is a flag of `magi serve`. Does not import PyTorch."""

from typing import Annotated

from pydantic import Field

from magi_video.settings import settings

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


@settings
class ServingLimits:
    """Bounds of the page.

    Raises:
        MagiError: a number is not above zero, or `max_share` above one.
    """

    max_frames: Count = 240
    """Frames of one video."""
    max_clip_frames: Count = 256
    """Frames read of an uploaded clip; what follows is ignored."""
    max_upload_mb: Count = 32
    """Size of an uploaded file, MB."""
    max_queue: Count = 8
    """Videos that wait for their turn."""
    max_running: Count = 2
    """Videos that are made at the same time, frame by frame in turns; one of each visitor."""
    max_players: Count = 4
    """People who play at the same time."""
    max_run_frames: Count = 2100
    """Frames of a player's run that are kept, to go back to and to save; fewer where they are large (max-kept-mb)."""
    max_games: Count = 2
    """Real games that run beside the model at the same time."""
    max_connections: Count = 128
    """Connections at the same time."""
    max_share: Annotated[float, Field(gt=0, le=1)] = 0.75
    """What one address may have of the connections, the uploads, the videos and the players' places: at most this part
    of each, and at least one; 1 where all visitors have one address."""
    slow_seconds: Seconds = 10.0
    """That a connection may be silent before its request is there, or leave its answer untaken."""
    idle_seconds: Seconds = 300.0
    """Without a key, after which a player's place is given up."""
    grace_seconds: Seconds = 15.0
    """That a visitor whose connection broke has to come back."""
    keep_seconds: Seconds = 900.0
    """That uploads and finished videos are kept after they were last looked at."""
    max_kept_mb: Count = 512
    """Memory for the frames of all videos; the oldest finished ones make room. As much for those of all runs."""

    def share(self, places: int) -> int:
        """How many of so many places one address may have."""
        return max(1, int(places * self.max_share))
