"""What browsers send, taken in bounded pieces and checked before use."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from magi_video.errors import MagiError

MAX_JSON_BYTES = 16_384
Model = TypeVar("Model", bound=BaseModel)


class TooLargeError(MagiError):
    """More bytes than are taken."""


async def receive(request: Request, most: int, take: Callable[[bytes], Any]) -> None:
    """Hands over a request's body piece by piece; raises `TooLargeError` beyond `most` bytes."""
    told = request.headers.get("content-length", "")
    received = 0
    if told.isdecimal() and int(told[:15]) > most:
        raise TooLargeError(f"too large: expected at most {most / 10**6:g} MB")
    async for piece in request.stream():
        received += len(piece)
        if received > most:
            raise TooLargeError(f"too large: expected at most {most / 10**6:g} MB")
        take(piece)
    if not received:
        raise MagiError("nothing was sent")


async def read_request(request: Request, kind: type[Model]) -> Model:
    """A small JSON body as a checked request."""
    body = bytearray()
    await receive(request, MAX_JSON_BYTES, body.extend)
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
