from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magi_video.errors import MagiError
from tests.fuzz.corpus import Reader, damage, mend
from tests.fuzz.readers import MAKERS, make_corpus

EXAMPLES = {
    "image": 150,
    "json": 100,
    "preset": 100,
    "actions": 150,
    "captions": 100,
    "array": 100,
    "video": 60,
    "checkpoint": 60,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Reader]]:
    root = tmp_path_factory.mktemp("fuzz")
    return root, make_corpus(root, MAKERS)


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_files_are_read_or_refused_in_one_line(name: str, corpus: tuple[Path, dict[str, Reader]]) -> None:
    root, readers = corpus
    reader = readers[name]
    reader.read(root / name, reader.files[0])

    @settings(max_examples=EXAMPLES.get(name, 15), deadline=None, derandomize=True, database=None)
    @given(st.integers(0, 2**32))
    def feed(seed: int) -> None:
        damaged = damage(root / name, reader, seed)
        try:
            reader.read(root / name, damaged)
        except MagiError as error:
            assert "\n" not in str(error)
        finally:
            mend(root / name, damaged)

    feed()
