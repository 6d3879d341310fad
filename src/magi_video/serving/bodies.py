"""What browsers send, taken in bounded pieces and checked before use."""

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from magi_video.errors import MagiError

MAX_JSON_BYTES = 16_384
SLOWEST = 16_384
"""Bytes a second that a body must come at, on the whole, after the first seconds."""
Model = TypeVar("Model", bound=BaseModel)


class TooLargeError(MagiError):
    """More bytes than are taken."""


async def receive(request: Request, most: int, take: Callable[[bytes], Any], slow_seconds: float) -> None:
    """Hands over a request's body piece by piece.

    Raises:
        TooLargeError: more than `most` bytes.
        MagiError: nothing comes for `slow_seconds`, or less on the whole than `SLOWEST`; it breaks off, or is empty.
    """
    length = request.headers.get("content-length", "")
    received = 0
    if length.isdecimal() and int(length[:15]) > most:
        raise TooLargeError(f"too large: expected at most {most / 10**6:g} MB")
    began, pieces = time.monotonic(), request.stream()
    while True:
        try:
            async with asyncio.timeout(slow_seconds):
                piece = await anext(pieces, None)
        except TimeoutError:
            raise MagiError("what was sent came too slowly") from None
        except ClientDisconnect:
            raise MagiError("what was sent broke off") from None
        if piece is None:
            break
        if received < SLOWEST * (time.monotonic() - began - slow_seconds):
            raise MagiError("what was sent came too slowly")
        received += len(piece)
        if received > most:
            raise TooLargeError(f"too large: expected at most {most / 10**6:g} MB")
        take(piece)
    if not received:
        raise MagiError("nothing was sent")


async def read_request(request: Request, kind: type[Model], slow_seconds: float) -> Model:
    """A small JSON body as a checked request."""
    body = bytearray()
    await receive(request, MAX_JSON_BYTES, body.extend, slow_seconds)
    return parse_request(bytes(body), kind)


def parse_request(body: bytes | str | dict[str, Any], kind: type[Model]) -> Model:
    """JSON as a checked request; a `MagiError` says in a line what is wrong with it."""
    try:
        return kind.model_validate(json.loads(body) if isinstance(body, bytes | str) else body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise MagiError(f"{where or 'request'}: {first['msg']}") from None
    except (ValueError, RecursionError):
        raise MagiError("expected a JSON object") from None
