"""Where weights are found, and what the lock says of them."""

import hashlib
import os
from dataclasses import replace

import pytest

from model_zoo import cards, weights
from model_zoo.catalogue import CARDS
from model_zoo.roles import Card

NET = Card("detect", "", weights="hf:who/net", revision="main", name="net")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(CARDS, "net", replace(NET, name=""))
    return tmp_path


@pytest.fixture
def net(folder):
    """The weights of NET, fetched."""
    (folder / "net" / "sub").mkdir(parents=True)
    (folder / "net" / "config.json").write_bytes(b"{}")
    (folder / "net" / "sub" / "net.bin").write_bytes(b"weights")
    weights.note(NET, folder / "net", "a" * 40)
    return folder / "net"


def change(path, data: bytes) -> None:
    """Write as many bytes at another time."""
    was = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 10**9))


def untouched(path, data: bytes) -> None:
    """Write as many bytes, and put back the time."""
    was = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("hf:who/net", "net"),
        ("hf:who/net/net.bin", "net/net.bin"),
        ("hf:who/net/sub/net.bin", "net/sub/net.bin"),
        ("hf:who/net/sub/net.bin", "net.bin"),
        ("url:https://host/a/net.bin", "net.bin"),
        ("net.bin", "net.bin"),
        ("pack_l", "insightface/models/pack_l"),
    ],
)
def test_weights_are_found_under_the_folder_by_their_last_name(folder, source, place):
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).touch()

    assert weights.find(replace(NET, weights=source)) == folder / place


def test_missing_weights_name_the_command_or_who_must_get_them(folder):
    with pytest.raises(FileNotFoundError, match="`a2data models fetch net` brings them"):
        weights.find(NET)
    with pytest.raises(
        FileNotFoundError, match=r"a2data does not fetch them, their licence \(mine\) is yours to accept"
    ):
        weights.find(replace(NET, weights="pack", weights_license="mine"))


def test_the_digest_is_the_same_whether_it_is_read_from_the_lock_or_from_the_files(net, folder):
    from_lock = cards.digest(str(net))
    (folder / weights.LOCK).unlink()
    cards.digest.cache_clear()
    total = hashlib.sha256()
    for name, data in (("config.json", b"{}"), ("sub/net.bin", b"weights")):
        total.update(name.encode() + hashlib.sha256(data).digest())

    assert from_lock == cards.digest(str(net)) == total.hexdigest()[:16]


def test_files_with_the_size_and_time_of_the_lock_are_not_read_again(net, monkeypatch):
    expected = cards.digest(str(net))
    cards.digest.cache_clear()
    monkeypatch.setattr(weights, "sha256", lambda path: pytest.fail(f"{path} was read"))

    assert cards.revision("net") == expected


def test_a_file_that_was_only_touched_is_read_and_is_fine(net):
    change(net / "sub" / "net.bin", b"weights")

    assert weights.find(NET) == net


def test_a_changed_file_is_refused_with_both_hashes(net):
    change(net / "sub" / "net.bin", b"WEIGHTS")
    now, was = (hashlib.sha256(data).hexdigest() for data in (b"WEIGHTS", b"weights"))

    with pytest.raises(ValueError, match=rf"'net': .*net\.bin is another file .* sha256 {now}, was {was}; remove"):
        weights.find(NET)
    with pytest.raises(ValueError, match="another file"):
        cards.revision("net")


def test_only_every_byte_shows_a_change_under_the_same_size_and_time(net):
    untouched(net / "sub" / "net.bin", b"WEIGHTS")
    weights._sha256.cache_clear()

    assert weights.differences(NET, net) == []
    assert len(weights.differences(NET, net, every_byte=True)) == 1


def test_a_missing_and_a_foreign_file_are_named(net):
    (net / "config.json").rename(net / "other.json")

    missing, foreign = weights.differences(NET, net)

    assert "config.json was fetched on" in missing
    assert "other.json was not fetched with the others" in foreign


def test_weights_of_another_repository_under_the_same_name_are_refused(net):
    with pytest.raises(ValueError, match="was fetched from hf:who/net, and not from hf:other/net"):
        weights.find(replace(NET, weights="hf:other/net"))


def test_a_file_is_held_against_the_hash_on_its_card(folder):
    (folder / "net.pt").write_bytes(b"weights")
    right = replace(NET, weights="url:https://host/net.pt", sha256=hashlib.sha256(b"weights").hexdigest())

    assert weights.find(right) == folder / "net.pt"
    with pytest.raises(ValueError, match=r"is not what the card means: sha256 .*, should be 00"):
        weights.find(replace(right, sha256="0" * 64))


def test_a_lock_that_does_not_read_is_a_sentence(net, folder):
    (folder / weights.LOCK).write_text('{"net": 1}')

    with pytest.raises(ValueError, match=r"weights\.lock\.json cannot be read"):
        weights.find(NET)


def test_code_that_comes_with_weights_runs_only_where_that_is_allowed(net, monkeypatch):
    builder = "no_such_module:build"
    monkeypatch.setitem(CARDS, "net", replace(NET, builder=builder, trust_remote_code=True, extra="builtin"))
    monkeypatch.delenv("A2DATA_REMOTE_CODE", raising=False)

    with pytest.raises(PermissionError, match=r"'net' runs code that comes with its weights .*A2DATA_REMOTE_CODE=yes"):
        cards.load("net")
    monkeypatch.setenv("A2DATA_REMOTE_CODE", "yes")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        cards.load("net")
