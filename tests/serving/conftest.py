"""Fixtures of the page's tests, which are left out, saying so, where the extra is not installed."""

from importlib.util import find_spec

MISSING = find_spec("fastapi") is None or find_spec("uvicorn") is None

if MISSING:
    collect_ignore_glob = ["test_*.py"]
else:
    from tests.serving.browser import open_page
    from tests.serving.site import (
        chromium,
        make_pipe,
        make_site,
        nearby_reading,
        pipe,
        site,
        slow_pipe,
        start_server,
        words_pipe,
    )

    __all__ = [
        "chromium", "make_pipe", "make_site", "nearby_reading", "open_page", "pipe", "site", "slow_pipe",
        "start_server", "words_pipe",
    ]  # fmt: skip


def pytest_report_header() -> str | None:
    return "tests/serving are left out: the extra serve is not installed" if MISSING else None
