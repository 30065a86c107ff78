"""Names from data are checked before they become part of a path."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from a2data.store.filename import safe_name, safe_path
from a2data.store.folder import Folder

HOSTILE = [
    "",
    ".",
    "..",
    ".bashrc",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "a\u2028b",
    "\ud800",
    "x" * 256,
    "ü" * 128,
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_rejected_with_its_origin(name):
    with pytest.raises(ValueError, match=r"^shard 3: .* cannot be used as a file name: it "):
        safe_name(name, "shard 3")


@pytest.mark.parametrize(
    "name", ["clip-00000000.mp4", "Müller, 2.mp4", "漢字.png", "x" * 255, "ü" * 127, "-v"], ids=ascii
)
def test_an_ordinary_name_is_returned_unchanged(name):
    assert safe_name(name, "shard 3") == name
    assert safe_path(f"human/{name}", "line 1") == f"human/{name}"


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "a/", "a/b\0", ""], ids=ascii)
def test_a_path_that_leaves_its_folder_is_rejected(path):
    with pytest.raises(ValueError, match=r"^line 1: .* is not a path inside its folder"):
        safe_path(path, "line 1")


@settings(max_examples=50)
@given(st.text(max_size=300))
def test_a_name_that_passes_names_a_file_directly_below_its_folder(name):
    try:
        path = os.path.join("/folder", safe_name(name, "test"))
    except ValueError:
        return
    assert os.path.dirname(os.path.normpath(path)) == "/folder"
    os.fsencode(path)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "..", ".", "", "a\0"], ids=ascii)
def test_a_folder_opens_nothing_outside_itself(tmp_path, name):
    (tmp_path / "x").write_bytes(b"outside")
    folder = Folder(tmp_path / "inside")
    for access in (folder.path, folder.get, folder.reading, folder.remove, lambda n: folder.put(b"", n)):
        with pytest.raises(ValueError, match="is not a path inside"):
            access(name)
    assert [path.name for path in tmp_path.rglob("*")] == ["x"]
