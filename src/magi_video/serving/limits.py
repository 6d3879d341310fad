"""How much the page lets anyone ask for. Every number is a flag of `magi serve`. Standard library alone."""

from dataclasses import dataclass, fields

from magi_video.errors import MagiError


@dataclass(frozen=True)
class ServingLimits:
    """Bounds of the page.

    Raises:
        MagiError: a number is not above zero.
    """

    max_frames: int = 240
    """Frames of one video."""
    max_clip_frames: int = 256
    """Frames read of an uploaded clip; what follows is ignored."""
    max_upload_mb: int = 32
    """Size of an uploaded file, MB."""
    max_queue: int = 8
    """Videos that wait for their turn."""
    max_running: int = 2
    """Videos that are made at the same time, frame by frame in turns; one of each visitor."""
    max_players: int = 4
    """People who play at the same time."""
    max_run_frames: int = 2100
    """Frames of a player's run that are kept, to go back to and to save; fewer where they are large (max-kept-mb)."""
    max_games: int = 2
    """Real games that run beside the model at the same time."""
    max_connections: int = 128
    """Connections at the same time."""
    max_share: float = 0.75
    """What one address may have of the connections, the uploads, the videos and the players' places: at most this part
    of each, and at least one; 1 where all visitors have one address."""
    slow_seconds: float = 10.0
    """That a connection may be silent before its request is there, or leave its answer untaken."""
    idle_seconds: float = 300.0
    """Without a key, after which a player's place is given up."""
    grace_seconds: float = 15.0
    """That a visitor whose connection broke has to come back."""
    keep_seconds: float = 900.0
    """That uploads and finished videos are kept after they were last looked at."""
    max_kept_mb: int = 512
    """Memory for the frames of all videos; the oldest finished ones make room. As much for those of all runs."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise MagiError(f"{field.name.replace('_', '-')} must be above 0, got {getattr(self, field.name)}")
        if self.max_share > 1:
            raise MagiError(f"max-share must be at most 1, got {self.max_share}")

    def share(self, places: int) -> int:
        """How many of so many places one address may have."""
        return max(1, int(places * self.max_share))
