import dataclasses
import hashlib
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sources import manifest


@pytest.fixture
def folder(tmp_path):
    """Three videos, two of them alike, and a file that is none. To the manifest a video is a name and bytes."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "a.mp4").write_bytes(b"one")
    (tmp_path / "deep" / "B.MKV").write_bytes(b"two")
    (tmp_path / "deep" / "er" / "copy of a.webm").write_bytes(b"one")
    (tmp_path / "notes.txt").write_text("none")
    return tmp_path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(rows):
    return sorted(os.path.basename(row.path) for row in rows)


def test_a_folder_is_searched_to_the_bottom(folder):
    assert names(manifest.sources([str(folder)])) == ["B.MKV", "a.mp4", "copy of a.webm"]


def test_bytes_decide_the_id_and_a_copy_names_the_first(folder):
    rows = {os.path.basename(row.path): row for row in manifest.sources([str(folder)])}
    assert rows["a.mp4"].video_id == sha(b"one")[:16]
    assert rows["a.mp4"].duplicate_of == ""
    copy = rows["copy of a.webm"]
    assert copy.video_id == f"{sha(b'one')[:16]}-dup-{sha(copy.path.encode())[:8]}"
    assert copy.duplicate_of == str(folder / "a.mp4")


def test_rows_are_sorted_by_id_in_whatever_order_they_are_given(folder):
    parts = [str(folder / "deep"), str(folder / "a.mp4")]
    rows = manifest.sources(parts)
    assert rows == manifest.sources(parts[::-1]) == manifest.sources([str(folder)])
    assert [row.video_id for row in rows] == sorted(row.video_id for row in rows)


def test_globs_and_files_whose_names_look_like_globs(folder):
    (folder / "clip [1080p].mp4").write_bytes(b"three")
    assert names(manifest.sources([str(folder / "*.mp4")])) == ["a.mp4", "clip [1080p].mp4"]
    assert names(manifest.sources([str(folder / "clip [1080p].mp4")])) == ["clip [1080p].mp4"]


def test_urls_go_through_fsspec(folder):
    [row] = manifest.sources([f"file://{folder}/a.mp4"])
    assert (row.video_id, row.bytes, row.path) == (sha(b"one")[:16], 3, f"file://{folder}/a.mp4")
    assert names(manifest.sources([f"file://{folder}/*.mp4"])) == ["a.mp4"]


def write_list(folder, suffix, lines):
    path = folder / f"list{suffix}"
    if suffix == ".csv":
        columns = list(lines[0])
        path.write_text("\n".join(",".join(map(str, row)) for row in [columns, *(line.values() for line in lines)]))
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, lines)))
    else:
        pq.write_table(pa.Table.from_pylist(lines), path)
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_lists_bring_licence_source_and_label_and_paths_seen_from_their_folder(folder, suffix):
    line = {"path": "deep/B.MKV", "license": "CC0", "source": "attic", "label": "cats"}
    [row] = manifest.sources([write_list(folder, suffix, [line])])
    assert (row.license, row.source, row.label, row.bytes) == ("CC0", "attic", "cats", 3)
    assert row.path == str(folder / "deep" / "B.MKV")


def test_a_line_without_path_is_named(folder):
    with pytest.raises(ValueError, match=r'list\.csv, row 2: needs a "path" or a "url", has path, label'):
        manifest.sources([write_list(folder, ".csv", [{"path": "a.mp4", "label": "x"}, {"path": "", "label": "y"}])])


def test_what_cannot_be_read_stays_in_the_manifest_by_name(folder):
    [row] = manifest.sources([write_list(folder, ".jsonl", [{"url": "gone.mp4"}])])
    assert row.video_id == "unread-" + sha(str(folder / "gone.mp4").encode())[:16]


def test_known_files_are_not_read_again(folder, monkeypatch):
    known = manifest.sources([str(folder)])
    monkeypatch.setattr(manifest, "with_content_id", lambda row: pytest.fail(f"read {row.path}"))
    assert manifest.sources([str(folder)], known) == []


def test_only_what_is_new_gets_a_row(folder):
    known = manifest.sources([str(folder)])
    (folder / "new.mov").write_bytes(b"three")
    (folder / "copy.mov").write_bytes(b"two")
    rows = manifest.sources([str(folder)], known)
    assert names(rows) == ["copy.mov", "new.mov"]
    assert {row.duplicate_of for row in rows} == {"", str(folder / "deep" / "B.MKV")}


def test_a_file_that_was_only_touched_is_not_new_but_one_with_other_bytes_is(folder):
    known = manifest.sources([str(folder)])
    os.utime(folder / "a.mp4", (1, 1))
    assert manifest.sources([str(folder)], known) == []
    (folder / "a.mp4").write_bytes(b"four")
    [row] = manifest.sources([str(folder)], known)
    assert row.video_id == sha(b"four")[:16]


def test_ids_are_never_given_twice(folder):
    for number in range(5):
        (folder / f"same{number}.mp4").write_bytes(b"one")
    rows = manifest.sources([str(folder), str(folder / "a.mp4")])
    assert len({row.video_id for row in rows}) == len(rows) == 8
    assert sum(not row.duplicate_of for row in rows) == 2


def test_inputs_that_give_nothing_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="file or folder not found"):
        manifest.sources([str(tmp_path / "nothing")])
    with pytest.raises(ValueError, match="does not contain videos"):
        manifest.sources([str(tmp_path / "*.mp4")])


def test_a_source_is_a_plain_row(folder):
    [row] = manifest.sources([str(folder / "a.mp4")])
    assert dataclasses.asdict(row)["modified_ns"] == os.stat(folder / "a.mp4").st_mtime_ns
