"""MNIST by download, from two mirrors on this machine."""

import hashlib
import http.server
import io
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mnist_files import NAMES, TEST_IMAGES, TEST_LABELS, TRAIN_IMAGES, TRAIN_LABELS, small_mnist, write

from bnkit import data

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder in which downloads are kept, empty."""
    pooch = pytest.importorskip("pooch")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path / "cache" / "bnkit" / "mnist"


class Mirror:
    """A server on this machine: what it answers to each file name, and what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        self.asked: list[str] = []
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                mirror.asked.append(name)
                if name not in mirror.files:
                    self.send_error(404)
                    return
                content = mirror.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if name in mirror.cut else content)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[tuple[Mirror, Mirror]]:
    """Two mirrors that serve a small MNIST whose hashes stand for the real ones."""
    pair = (Mirror(), Mirror())
    for mirror in pair:
        mirror.files = small_mnist()
    monkeypatch.setattr("bnkit.data.mnist.MIRRORS", tuple(mirror.url for mirror in pair))
    monkeypatch.setattr(
        "bnkit.data.mnist.MNIST_SHA256", {k: hashlib.sha256(v).hexdigest() for k, v in small_mnist().items()}
    )
    yield pair
    for mirror in pair:
        mirror.close()


def test_a_download_fills_the_cache_and_is_used_again(
    mirrors: tuple[Mirror, Mirror], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = data.load("mnist")
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == small_mnist()
    assert mirrors[0].asked == NAMES
    assert mirrors[1].asked == []
    assert capfd.readouterr() == ("", "")
    for mirror in mirrors:
        mirror.files = {}
    second = data.load("mnist")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    assert mirrors[0].asked == NAMES


def test_a_download_is_not_logged_and_leaves_the_log_level_of_pooch_as_it_was(mirrors: tuple[Mirror, Mirror]) -> None:
    logger = pytest.importorskip("pooch").get_logger()
    before = logger.level
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        data.load("mnist")
        assert logger.level == logging.DEBUG
        assert stream.getvalue() == ""
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


@pytest.mark.parametrize("fault", ["absent", "cut", "wrong", "down"])
def test_the_second_mirror_is_tried_where_the_first_fails(mirrors: tuple[Mirror, Mirror], fault: str) -> None:
    first, second = mirrors
    if fault == "absent":
        first.files = {}
    elif fault == "cut":
        first.cut = set(NAMES)
    elif fault == "wrong":
        first.files = dict.fromkeys(NAMES, b"<html>Sign in</html>")
    else:
        first.close()
    assert data.load("mnist").x_train.shape == (12, 784)
    assert second.asked == NAMES


@pytest.mark.parametrize("fault", ["absent", "cut", "down"])
def test_a_download_that_fails_is_one_error_with_a_remedy_and_leaves_no_file(
    mirrors: tuple[Mirror, Mirror], cache: Path, fault: str
) -> None:
    for mirror in mirrors:
        if fault == "absent":
            mirror.files = {}
        elif fault == "cut":
            mirror.cut = {TRAIN_IMAGES}
        else:
            mirror.close()
    with pytest.raises(ConnectionError, match=f"cannot download MNIST's {TRAIN_IMAGES}") as caught:
        data.load("mnist")
    message = str(caught.value)
    assert "BNKIT_DATA_DIR" in message
    assert "--data-dir" in message
    assert all(name in message for name in NAMES)
    assert all(mirror.url in message for mirror in mirrors)
    assert "\n" not in message
    assert caught.value.__cause__ is not None
    assert list(cache.iterdir()) == []


def test_a_download_cut_at_a_later_file_keeps_the_whole_ones(mirrors: tuple[Mirror, Mirror], cache: Path) -> None:
    for mirror in mirrors:
        mirror.cut = {TEST_IMAGES}
    with pytest.raises(ConnectionError, match=TEST_IMAGES):
        data.load("mnist")
    assert sorted(path.name for path in cache.iterdir()) == sorted([TRAIN_IMAGES, TRAIN_LABELS])
    mirrors[0].cut = set()
    data.load("mnist")
    assert mirrors[0].asked == [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_IMAGES, TEST_LABELS]


def test_wrong_content_from_every_mirror_is_a_value_error_and_leaves_no_file(
    mirrors: tuple[Mirror, Mirror], cache: Path
) -> None:
    for mirror in mirrors:
        mirror.files = small_mnist(seed=5)
    with pytest.raises(ValueError, match=f"no mirror gave MNIST's {TRAIN_IMAGES} with the right SHA-256.*BNKIT_DATA_D"):
        data.load("mnist")
    assert list(cache.iterdir()) == []


def test_one_mirror_down_and_wrong_content_from_the_other_is_a_connection_error(mirrors: tuple[Mirror, Mirror]) -> None:
    mirrors[0].close()
    mirrors[1].files = small_mnist(seed=5)
    with pytest.raises(ConnectionError, match=r"cannot download MNIST's .*SHA256 hash"):
        data.load("mnist")


def test_a_damaged_file_in_the_cache_is_downloaded_again(mirrors: tuple[Mirror, Mirror], cache: Path) -> None:
    write(cache, small_mnist() | {TEST_LABELS: b"half of it"})
    data.load("mnist")
    assert mirrors[0].asked == [TEST_LABELS]
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == small_mnist()


def test_an_empty_environment_variable_counts_as_unset(
    mirrors: tuple[Mirror, Mirror], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BNKIT_DATA_DIR", "")
    assert data.load("mnist").x_train.shape == (12, 784)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(mirrors: tuple[Mirror, Mirror], cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("a file where the folder belongs")
    with pytest.raises(OSError, match=r"cannot write .* into the cache .*BNKIT_DATA_DIR"):
        data.load("mnist")
    assert mirrors[0].asked == []


def test_a_named_directory_is_never_downloaded_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrors: tuple[Mirror, Mirror], cache: Path
) -> None:
    folder = write(tmp_path / "some" / "mnist", {TRAIN_IMAGES: small_mnist()[TRAIN_IMAGES]})
    message = rf"{TRAIN_LABELS}, {TEST_IMAGES}, {TEST_LABELS} not found in .*mnist\. Put the files there"
    with pytest.raises(FileNotFoundError, match=message):
        data.load("mnist", path=folder.parent)
    monkeypatch.setenv("BNKIT_DATA_DIR", str(folder.parent))
    with pytest.raises(FileNotFoundError, match=message) as caught:
        data.load("mnist")
    assert str(folder) in str(caught.value)
    assert [path.name for path in folder.iterdir()] == [TRAIN_IMAGES]
    assert not cache.exists()
    assert not mirrors[0].asked
    assert not mirrors[1].asked
