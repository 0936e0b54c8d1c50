import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import tenfold
from tenfold import data
from tenfold.data import Layout, Remote, Split, _registry
from tenfold.data._locate import cache_root

FILES = {"first.bin": bytes(range(256)) * 40, "second.bin": b"second" * 1000}


@dataclass
class Mirror:
    """A loopback server whose first path element says how it misbehaves."""

    base: str
    requests: list[str] = field(default_factory=list)
    half_sent: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def __getitem__(self, manner: str) -> str:
        return f"{self.base}/{manner}/"


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.requests.append(self.path)
            _, manner, name = self.path.split("/")
            content = FILES[name]
            if manner == "gone":
                self.send_error(404)
                return
            if manner == "wrong":
                content = content[:-1] + b"!"
            if manner == "short":
                content = content[: len(content) // 2]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            half = len(content) // 2
            self.wfile.write(content[:half])
            if manner == "cut":
                return
            if manner == "slow":
                self.wfile.flush()
                made.half_sent.set()
                made.go_on.wait(20)
            self.wfile.write(content[half:])

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Mirror(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.go_on.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    monkeypatch.delenv("TENFOLD_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_registry, "_SETS", dict(_registry._SETS))


def read(folder: Path) -> data.Splits:
    assert all((folder / name).read_bytes() == content for name, content in FILES.items())
    split = Split(np.zeros((1, 2, 2), np.uint8), np.zeros(1, np.int64))
    return split, split, split


def register(*mirrors: str) -> Path:
    data.register_files(
        "tiny",
        classes=("only",),
        layouts=(Layout("original", ("tiny",), tuple(FILES), read),),
        stand_in="digits",
        remote=Remote(
            mirrors, {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
        ),
    )
    return cache_root() / "tiny"


def test_download_then_cache(mirror):
    folder = register(mirror["good"])
    assert data.find("tiny") is None
    assert data.load("tiny").source == "download"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert data.load("tiny").source == "cache"
    assert mirror.requests == ["/good/first.bin", "/good/second.bin"]


def test_download_not_allowed(mirror):
    register(mirror["good"])
    with pytest.raises(tenfold.DataError, match=r"not allowed.*'digits'"):
        data.load("tiny", download=False)
    assert mirror.requests == []


@pytest.mark.parametrize("manner", ["cut", "short", "wrong", "gone"])
def test_bad_mirror_leaves_nothing(mirror, manner):
    folder = register(mirror[manner])
    with pytest.raises(tenfold.DataError, match=rf"{manner}/first\.bin.*TENFOLD_DATA.*'digits'"):
        data.load("tiny")
    assert list(folder.iterdir()) == []
    assert data.find("tiny") is None


@pytest.mark.parametrize("manner", ["cut", "short", "wrong", "gone"])
def test_next_mirror_is_tried(mirror, manner):
    register(mirror[manner], mirror["good"])
    assert data.load("tiny").source == "download"
    assert [path for path in mirror.requests if path.startswith("/good/")] == [
        f"/good/{name}" for name in FILES
    ]


def test_half_a_download_does_not_look_complete(mirror):
    folder = register(mirror["slow"])
    loaded: list[data.ImageData] = []
    loading = threading.Thread(target=lambda: loaded.append(data.load("tiny")))
    loading.start()
    assert mirror.half_sent.wait(20)
    assert not (folder / "first.bin").exists()
    assert data.find("tiny") is None
    with pytest.raises(tenfold.DataError):
        data.load("tiny", download=False)
    mirror.go_on.set()
    loading.join(20)
    assert loaded[0].source == "download"


def test_interrupted_download_goes_on(mirror):
    folder = register(mirror["good"])
    folder.mkdir(parents=True)
    (folder / "first.bin").write_bytes(FILES["first.bin"])
    (folder / "tmpx1y2").write_bytes(FILES["second.bin"][:100])
    assert data.load("tiny").source == "download"
    assert mirror.requests == ["/good/second.bin"]


def test_cache_that_cannot_be_written(mirror, tmp_path):
    register(mirror["good"])
    (tmp_path / "tenfold").write_bytes(b"in the way")
    with pytest.raises(tenfold.DataError, match="could not be downloaded"):
        data.load("tiny")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_published_sets_refuse_other_bytes(mirror, monkeypatch, name):
    published = _registry._SETS[name]
    served = replace(published, remote=replace(published.remote, mirrors=(mirror["good"],)))
    monkeypatch.setitem(_registry._SETS, name, served)
    for file in published.remote.sha256:
        monkeypatch.setitem(FILES, file, b"not what was published")
    with pytest.raises(tenfold.DataError, match=r"does not match the known hash.*mnist-5k"):
        data.load(name)
    assert data.find(name) is None


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10"])
def test_published_sets_have_mirrors_and_a_layout_that_they_fill(name):
    published = _registry._SETS[name]
    assert len(published.remote.mirrors) >= 2
    assert all(base.startswith("http") and base.endswith("/") for base in published.remote.mirrors)
    assert all(len(bytes.fromhex(digest)) == 32 for digest in published.remote.sha256.values())
    assert any(
        set(layout.files) == set(published.remote.sha256) and name in layout.folders
        for layout in published.layouts
    )
