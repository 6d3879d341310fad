"""Memory that is allocated within `huge_pages` lies in huge pages, where Linux gives them; its content stays."""

from pathlib import Path

import pytest
import torch

from magi_video.fast import huge_pages
from magi_video.fast.huge_pages import HUGE, private_memory

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def kilobytes(name: str) -> int:
    """Of this process, by a name of `smaps_rollup`."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def gives() -> bool:
    """Whether this system gives huge pages, and at once (Linux 6.1)."""
    if not ENABLED.exists() or "[never]" in ENABLED.read_text():
        return False
    release = Path("/proc/sys/kernel/osrelease").read_text().split(".")
    return (int(release[0]), int(release[1])) >= (6, 1)


@pytest.mark.skipif(not gives(), reason="this system gives no huge pages when asked")
def test_memory_lies_in_huge_pages_and_keeps_its_content() -> None:
    before = kilobytes("AnonHugePages")
    outside = torch.ones(16 * HUGE // 4)
    assert kilobytes("AnonHugePages") - before < 16 * HUGE // 1024  # else there would be nothing to ask for
    before = kilobytes("AnonHugePages")
    with huge_pages.huge_pages():
        inside = torch.arange(16 * HUGE // 4)
    assert kilobytes("AnonHugePages") - before >= 12 * HUGE // 1024
    assert torch.equal(inside, torch.arange(len(inside)))
    assert bool((outside == 1).all())


def test_nothing_happens_where_memory_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "MAPS", tmp_path / "none")
    monkeypatch.setattr(huge_pages, "advise", lambda *_: pytest.fail("asked"))
    assert private_memory() == {}
    with huge_pages.huge_pages():
        torch.ones(16 * HUGE // 4)


def test_a_system_that_declines_is_done_without() -> None:
    huge_pages.advise(0, HUGE)  # address 0 is nobody's
