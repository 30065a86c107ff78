"""Weights come from servers on this machine: one that serves files, one that speaks what the Hugging Face hub does of it."""

import hashlib
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from model_zoo import cards, weights
from model_zoo.roles import Card
from pipelines.cli import fetch

COMMIT, LATER = "a" * 40, "b" * 40
REPOSITORY = {
    "config.json": b"{}",
    "model.safetensors": b"weights" * 1000,
    "pytorch_model.bin": b"old",
    "README.md": b"#",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves `files` by path; announces the full length of a truncated one. Notes what was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        status, body = self.server.files.get(self.path.partition("?")[0], (404, b"no"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) * (2 if self.path in self.server.cut else 1)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{sha256(body)}"')
        self.send_header("X-Error-Code", "GatedRepo" if status == 403 else "")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.close_connection = True

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on the loopback, and an empty folder of weights."""
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path / "weights"))
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    httpd.files, httpd.cut, httpd.asked = {}, set(), []
    httpd.url = f"http://127.0.0.1:{httpd.server_port}"
    monkeypatch.setenv("HF_ENDPOINT", httpd.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def one_file(server, body: bytes = b"weights", **more: str) -> Card:
    server.files["/net.pt"] = (200, body)
    return Card("detect", "", weights=f"url:{server.url}/net.pt", name="net", **more)


def repository(server, commit: str = COMMIT, revision: str = "main", files: dict | None = None, file: str = "") -> Card:
    """A card of the hub's repository who/net, which has `files`."""
    files = REPOSITORY if files is None else files
    siblings = [
        {"rfilename": name, "size": len(data), "lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 1}}
        for name, data in files.items()
    ]
    said = {"id": "who/net", "sha": commit, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0}
    server.files[f"/api/models/who/net/revision/{revision}"] = (200, json.dumps(said | {"private": False}).encode())
    for name, data in files.items():
        server.files[f"/who/net/resolve/{commit}/{name}"] = (200, data)
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


def test_a_body_cut_off_is_a_sentence_and_leaves_nothing(server):
    card = one_file(server)
    server.cut.add("/net.pt")

    with pytest.raises(OSError, match=r"download of .*net\.pt failed .*retry"):
        fetch.fetch(card)
    assert left(weights.folder()) == []
    server.cut.clear()
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


def test_weights_with_a_licence_that_the_user_must_accept_are_not_fetched(server):
    with pytest.raises(FileNotFoundError, match=r"'buffalo_s'.*non-commercial.*is yours to accept.*put it into"):
        fetch.fetch(cards.base_card("buffalo_s"))


# -- the Hugging Face hub ----------------------------------------------------------------------------------------------


def test_a_repository_comes_in_one_format_at_a_commit_that_is_written_down(server):
    card = repository(server)

    path, now = fetch.fetch(card)

    assert (path, now) == (weights.folder() / "net", True)
    assert left(weights.folder()) == ["net/config.json", "net/model.safetensors"]
    assert (path / "model.safetensors").read_bytes() == REPOSITORY["model.safetensors"]
    assert weights.entry(path).revision == COMMIT
    assert fetch.fetch(card) == (path, False)


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
    assert fetch.chosen(there) == taken
