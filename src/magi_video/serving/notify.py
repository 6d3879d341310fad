"""From the worker's thread to what waits in the event loop."""

import asyncio


class Bell:
    """Rung in any thread, heard in the event loop by everyone who waits. Make it in the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Event] = set()

    def ring(self) -> None:
        """Let all who wait look again."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        for event in self._waiting:
            event.set()

    def listen(self) -> "Listener":
        """A place to wait at, as a context manager; nothing that rings after this is missed."""
        return Listener(self)


class Listener:
    """See `Bell.listen`."""

    def __init__(self, bell: Bell) -> None:
        self._bell, self._event = bell, asyncio.Event()

    def __enter__(self) -> "Listener":
        self._bell._waiting.add(self._event)
        return self

    def __exit__(self, *exception: object) -> None:
        self._bell._waiting.discard(self._event)

    async def wait(self, timeout: float | None = None) -> None:
        """Wait for the bell, or so many seconds."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except TimeoutError:
            return
        self._event.clear()
