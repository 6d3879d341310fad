"""`magi serve MODEL`: the web page."""

from magi_video.cli.parsing import Grouped, Model, parse
from magi_video.errors import MagiError
from magi_video.installation import install_command
from magi_video.serving.options import ServeOptions
from magi_video.settings import settings


@settings
class Serve:
    """Serve a web page: generate, watch frames arrive, play. Ctrl-C stops it."""

    model: Model
    """Folder, hub id, or the name of a shipped model ("doom", "atari", "coinrun")."""
    options: Grouped[ServeOptions] = ServeOptions()
    """Of the server and its limits."""


def main(argv: list[str]) -> None:
    """Parse, load, serve until Ctrl-C."""
    asked = parse(Serve, "magi serve", argv)
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MagiError(f"{error.name} is not installed: {install_command('serve')}") from None
    from magi_video.serving.server import serve

    serve(asked.model, asked.options)
