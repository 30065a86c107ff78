"""Weights come from servers on this machine: one that serves files, one that speaks what the Hugging Face hub does of it."""

import io
import zipfile
from dataclasses import replace

import pytest
import weights_server
from weights_server import COMMIT, publish, sha256

from model_zoo import weights
from model_zoo.roles import Card
from pipelines.cli import download, fetch

LATER = "b" * 40
REPOSITORY = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"old",
    "README.md": b"#",
}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on the loopback, and an empty folder of weights."""
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY_WAITS_S", (0, 0))
    with weights_server.serving() as httpd:
        monkeypatch.setenv("HF_ENDPOINT", httpd.url)
        yield httpd


def one_file(server, body: bytes = b"weights", **more: str) -> Card:
    server.files["/net.pt"] = (200, body)
    return Card("detect", "", weights=f"url:{server.url}/net.pt", name="net", **more)


def repository(server, commit: str = COMMIT, revision: str = "main", files: dict | None = None, file: str = "") -> Card:
    """A card of the hub's repository who/net, which has `files`."""
    publish(server, "who/net", revision, REPOSITORY if files is None else files, commit)
    return Card("detect", "", weights=f"hf:who/net{file}", revision=revision, name="net")


def left(folder) -> list[str]:
    """The files in a folder of weights, without a2data's own notes."""
    return sorted(
        str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "weights.lock.json" not in p.name
    )


# -- one file by its address -------------------------------------------------------------------------------------------


def test_a_file_comes_whole_and_is_written_down(server):
    card = one_file(server)

    path, now = fetch.fetch(card)

    assert (path.read_bytes(), now) == (b"weights", True)
    assert weights.find(card) == path
    assert weights.entry(path).files["."].sha256 == sha256(b"weights")
    assert weights.entry(path).source == card.weights


def test_what_is_here_is_not_fetched_again(server):
    card = one_file(server)

    assert [fetch.fetch(card)[1] for _ in range(2)] == [True, False]
    assert server.asked == ["/net.pt"]


def test_a_body_cut_off_each_time_is_a_sentence_and_leaves_no_weights(server):
    card = one_file(server)
    server.drops["/net.pt"] = [0, 0, 0]

    with pytest.raises(OSError, match=r"download of .*net\.pt failed .*retry"):
        fetch.fetch(card)
    assert weights.located(card) is None
    assert fetch.fetch(card)[0].read_bytes() == b"weights"


def test_a_file_that_is_not_there_is_a_sentence_and_leaves_nothing(server):
    card = Card("detect", "", weights=f"url:{server.url}/gone.pt", name="net")

    with pytest.raises(OSError, match=r"'net'.*gone\.pt returned 404"):
        fetch.fetch(card)
    assert left(weights.folder()) == []


def test_a_server_that_is_not_there_is_a_sentence(server):
    with pytest.raises(OSError, match=r"'net'.*download of .* failed"):
        fetch.fetch(Card("detect", "", weights="url:http://127.0.0.1:1/net.pt", name="net"))


def test_a_file_other_than_the_card_says_is_not_kept(server):
    card = one_file(server, sha256=sha256(b"published"))

    with pytest.raises(ValueError, match=rf"{sha256(b'weights')}.*{sha256(b'published')}.*not kept"):
        fetch.fetch(card)
    assert left(weights.folder()) == []


def test_a_file_that_changed_on_the_server_is_refused_until_its_entry_is_removed(server):
    card = one_file(server)
    path, _ = fetch.fetch(card)
    path.unlink()
    one_file(server, b"other weights")

    with pytest.raises(
        ValueError, match=rf"has changed since.*{sha256(b'other weights')}, before {sha256(b'weights')}"
    ):
        fetch.fetch(card)
    assert left(weights.folder()) == []
    (weights.folder() / weights.LOCK).write_text("{}")
    assert fetch.fetch(card)[0].read_bytes() == b"other weights"


def test_a_file_put_there_by_hand_is_checked_and_written_down(server):
    card = one_file(server, sha256=sha256(b"weights"))
    weights.folder().mkdir(parents=True)
    (weights.folder() / "net.pt").write_bytes(b"weights")

    assert fetch.fetch(card) == (weights.folder() / "net.pt", False)
    assert weights.entry(weights.folder() / "net.pt").files["."].sha256 == sha256(b"weights")
    assert server.asked == []
    (weights.folder() / "net.pt").write_bytes(b"others!")
    with pytest.raises(ValueError, match="another file than the one fetched"):
        fetch.fetch(card)


def test_a_download_goes_on_where_it_was_cut_in_this_process_and_in_the_next(server):
    body = bytes(range(256)) * 1000
    card = one_file(server, body)
    server.drops["/net.pt"] = [100_000, 50_000, 20_000]

    with pytest.raises(OSError, match="it continues from there"):
        fetch.fetch(card)
    assert fetch.fetch(card)[0].read_bytes() == body
    assert server.sent["/net.pt"] == len(body)
    assert left(weights.folder()) == ["net.pt"]


def test_a_file_that_changed_between_two_attempts_starts_again(server):
    card = one_file(server, b"a" * 1000)
    server.drops["/net.pt"] = [400, 0, 0]
    with pytest.raises(OSError, match="continues from there"):
        fetch.fetch(card)
    one_file(server, b"b" * 1000)

    assert fetch.fetch(card)[0].read_bytes() == b"b" * 1000


def test_a_server_that_is_busy_is_asked_again_and_one_that_has_nothing_is_not(server):
    card = one_file(server)
    server.files["/net.pt"] = (503, b"busy")
    with pytest.raises(OSError, match="returned 503"):
        fetch.fetch(card)
    assert len(server.asked) == 3
    server.files["/net.pt"] = (404, b"gone")
    with pytest.raises(OSError, match="returned 404"):
        fetch.fetch(card)
    assert len(server.asked) == 4


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://github.com/who/net/releases/download/v1/net.pt", "/gh/who/net/releases/download/v1/net.pt"),
        ("https://raw.githubusercontent.com/who/net/v1/a/net.pt", "/gh/who/net/raw/v1/a/net.pt"),
    ],
)
def test_files_of_github_come_from_its_mirror(server, monkeypatch, url, path):
    monkeypatch.setenv("A2DATA_GITHUB_MIRROR", f"{server.url}/gh/")
    server.files[path] = (200, b"weights")

    got, _ = fetch.fetch(Card("detect", "", weights=f"url:{url}", name="net"))

    assert got.read_bytes() == b"weights"
    assert weights.entry(got).source == f"url:{url}"


# -- archives ----------------------------------------------------------------------------------------------------------


def archive(server, files: dict[str, bytes], **more: str) -> Card:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    server.files["/pack.zip"] = (200, packed.getvalue())
    return Card("faces", "", weights=f"url:{server.url}/pack.zip", name="pack", **more)


@pytest.mark.parametrize("inside", ["", "pack/", "pack/pack/"])
def test_an_archive_is_unpacked_without_the_folders_around_its_files(server, inside):
    card = archive(server, {f"{inside}det.onnx": b"det", f"{inside}sub/rec.onnx": b"rec", "__MACOSX/x": b"x"})

    path, now = fetch.fetch(card)

    assert (path, now) == (weights.folder() / "pack", True)
    assert left(weights.folder()) == ["pack/det.onnx", "pack/sub/rec.onnx"]
    assert fetch.fetch(card) == (path, False)


@pytest.mark.parametrize("name", ["../evil.onnx", "/evil.onnx", "a/../../evil.onnx"])
def test_an_archive_writes_no_file_outside_its_folder(server, tmp_path, name):
    with pytest.raises(ValueError, match="is not a path inside its folder"):
        fetch.fetch(archive(server, {"net.onnx": b"net", name: b"evil"}))
    assert left(tmp_path) == []


def test_an_archive_that_would_fill_the_disk_or_is_not_the_published_one_is_refused(server, monkeypatch):
    with pytest.raises(ValueError, match=f"expects {sha256(b'published')}.*not kept"):
        fetch.fetch(archive(server, {"net.onnx": b"net"}, sha256=sha256(b"published")))
    monkeypatch.setattr(fetch, "MAX_UNPACKED_BYTES", 2)
    with pytest.raises(ValueError, match="larger than 2 bytes"):
        fetch.fetch(archive(server, {"net.onnx": b"net"}))
    assert left(weights.folder()) == []


def test_what_is_called_an_archive_and_is_none_is_a_sentence(server):
    server.files["/pack.zip"] = (200, b"<html>")
    with pytest.raises(ValueError, match="cannot be unpacked"):
        fetch.fetch(Card("faces", "", weights=f"url:{server.url}/pack.zip", name="pack"))
    assert left(weights.folder()) == []


# -- the Hugging Face hub ----------------------------------------------------------------------------------------------


def test_a_repository_comes_in_one_format_at_a_commit_that_is_written_down(server):
    card = repository(server)

    path, now = fetch.fetch(card)

    assert (path, now) == (weights.folder() / "net", True)
    assert left(weights.folder()) == ["net/config.json", "net/model.safetensors"]
    assert (path / "model.safetensors").read_bytes() == REPOSITORY["model.safetensors"]
    assert weights.entry(path).revision == COMMIT
    assert fetch.fetch(card) == (path, False)


def test_a_repository_goes_on_where_it_was_cut_and_sends_no_byte_twice(server):
    card = repository(server)
    path = f"/who/net/resolve/{COMMIT}/model.safetensors"
    server.drops[path] = [3000, 1000, 500]

    with pytest.raises(OSError, match="continues from there"):
        fetch.fetch(card)
    assert (fetch.fetch(card)[0] / "model.safetensors").read_bytes() == REPOSITORY["model.safetensors"]
    sent = {name: server.sent[f"/who/net/resolve/{COMMIT}/{name}"] for name in REPOSITORY}
    assert sent == {"config.json": 2, "model.safetensors": 7000, "pytorch_model.bin": 0, "README.md": 0}


def test_a_card_with_patterns_takes_only_these_files(server):
    there = {"config.json": b"{}", "model.safetensors": b"net", "net_1b.safetensors": b"net"}
    card = replace(repository(server, files=there), files=("*.json", "model*.safetensors"))

    fetch.fetch(card)

    assert left(weights.folder()) == ["net/config.json", "net/model.safetensors"]


@pytest.mark.parametrize("pattern", ["*.pt", "*.json"])
def test_patterns_that_match_no_weights_are_a_sentence(server, pattern):
    with pytest.raises(ValueError, match=rf"'net': hf:who/net has no weights among its files \{pattern}"):
        fetch.fetch(replace(repository(server), files=(pattern,)))


def test_a_hub_that_is_not_there_is_a_sentence(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(OSError, match="'net': hf:who/net at main: "):
        fetch.fetch(Card("detect", "", weights="hf:who/net", revision="main", name="net"))


def test_one_file_of_a_repository_comes_alone(server):
    card = repository(server, file="/pytorch_model.bin")

    path, _ = fetch.fetch(card)

    assert left(weights.folder()) == ["net/pytorch_model.bin"]
    assert weights.find(card) == path
    assert weights.entry(path).files["."].sha256 == sha256(b"old")


def test_a_branch_that_moved_on_still_means_the_commit_of_the_first_fetch(server):
    path, _ = fetch.fetch(repository(server))
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    repository(server, revision=COMMIT)
    moved = repository(server, commit=LATER, files={"model.safetensors": b"new"})

    fetch.fetch(moved)

    assert (path / "model.safetensors").read_bytes() == REPOSITORY["model.safetensors"]
    assert weights.entry(path).revision == COMMIT


def test_a_card_pinned_to_another_commit_refuses_what_is_here(server):
    card = repository(server)
    fetch.fetch(card)

    with pytest.raises(ValueError, match=rf"is commit {COMMIT}, and the card means {LATER}"):
        weights.find(replace(card, revision=LATER))


def test_a_file_other_than_the_hub_says_is_not_kept(server):
    card = repository(server)
    server.files[f"/who/net/resolve/{COMMIT}/model.safetensors"] = (200, b"WEIGHTS" * 1000)

    with pytest.raises(ValueError, match=r"model\.safetensors has the sha256"):
        fetch.fetch(card)
    assert not weights.home(card).exists()
    repository(server)
    assert fetch.fetch(card)[1]


def test_a_repository_or_revision_that_is_not_there_is_a_sentence(server):
    with pytest.raises(OSError, match="'net': hf:who/net at main"):
        fetch.fetch(Card("detect", "", weights="hf:who/net", revision="main", name="net"))


def test_a_repository_writes_no_file_outside_its_folder(server, tmp_path):
    card = repository(server, files={"config.json": b"{}", str(tmp_path / "outside.bin"): b"evil"})

    with pytest.raises(ValueError, match=r"hf:who/net: '/.*' is not a path inside its folder"):
        fetch.fetch(card)

    assert left(tmp_path) == []


def test_weights_behind_a_form_say_where_to_accept_it(server):
    card = repository(server)
    server.files["/api/models/who/net/revision/main"] = (403, b"{}")

    with pytest.raises(PermissionError, match=r"accept its licence .* at https://huggingface\.co/who/net, .*HF_TOKEN"):
        fetch.fetch(card)


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["a.safetensors", "a.bin", "sub/a.onnx", "tf.h5", ".gitattributes", "LICENSE"], ["LICENSE", "a.safetensors"]),
        (["a-1.bin", "a-2.bin", "a.onnx", "vocab.txt"], ["a-1.bin", "a-2.bin", "vocab.txt"]),
        (["net.onnx", "README.md", "pages/x.PNG"], ["net.onnx"]),
        (["config.json"], ["config.json"]),
    ],
)
def test_of_several_formats_the_first_that_there_is_gets_taken(there, taken):
    assert fetch.files_to_download(there) == taken
