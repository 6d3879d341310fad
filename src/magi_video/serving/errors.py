"""What visitors see of an error: its one line, unless that names a place on the server.

Every message to a visitor that comes of an exception goes through here; the server's log keeps the whole.
"""

import logging
import os
import re
from pathlib import Path

from magi_video.errors import MagiError
from magi_video.installation import hide_address

logger = logging.getLogger(__name__)
WITHHELD = "something went wrong; the server's log says what"
SEPARATORS = tuple(filter(None, (os.sep, os.altsep)))


def public_message(error: MagiError, place: Path | None = None, name: str = "") -> str:
    """The message of an error for visitors: nothing with a path in it, be it relative, or one that they sent.

    Args:
        error: what went wrong.
        place: folder or file of which they may hear by a name.
        name: that name, instead of the place and of anything in it.
    """
    message = hide_address(str(error))
    if place is not None:
        message = re.sub(rf"{re.escape(str(place))}[^\s:]*", name, message)
    if any(separator in message for separator in SEPARATORS):
        message = WITHHELD  # not cut: where a path with blanks ends cannot be seen
    if message != str(error):
        logger.warning("not shown to visitors: %s", error)
    return message
