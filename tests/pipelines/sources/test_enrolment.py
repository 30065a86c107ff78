import json
import os
import socket
import time

import films_server as web
import numpy as np
import pytest

from a2data.job import run_job
from a2data.media import video
from a2data.records import Source
from a2data.store.source_files import SourceFiles
from a2data.store.tables import Store
from pipelines.corpus import forget
from pipelines.corpus.explain import explain
from pipelines.run import status
from pipelines.sources import enrolment
from pipelines.sources.download import Downloader, Limits
from pipelines.sources.manifest import Access
from stages.ingest import Ingest

SECRET = "me:hunter2@"
SIGNED = "?X-Amz-Signature=SECRET"


@pytest.fixture(scope="module")
def server():
    with web.serving() as server:
        yield server


@pytest.fixture
def corpus(server, tmp_path):
    server.answers, server.asked = {"/a.mp4": b"film a", "/b.mp4": b"film b"}, []
    return Corpus(server, tmp_path)


class Corpus:
    """A work folder, and lists that are enrolled into it from an internet that is the server."""

    def __init__(self, server, folder):
        self.server, self.folder, self.store = server, folder, Store(folder / "work")
        self.files = SourceFiles(self.store)

    def list(self, *lines, name="list.jsonl"):
        (self.folder / name).write_text("\n".join(json.dumps(line) for line in lines))
        return str(self.folder / name)

    def file(self, name, data=b"film"):
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def enroll(self, *inputs, limits=Limits(), allow_local=False, **how):  # noqa: B008
        downloader = Downloader(limits, allow_local, self.server.network(web.HOSTS))
        enrolment.enroll(self.store, list(inputs), 8, Access(downloader, self.files, **how))
        return self.rows()

    def rows(self):
        return [row for shard in self.store.shards("manifest") for row in self.store.read("manifest", shard, Source)]

    def refused(self):
        """What ingest says of each source that the manifest alone turns away: rejects by reason, failures by sentence."""
        rejects, failures = {}, {}
        for shard in self.store.shards("manifest"):
            run_job([Ingest()], [None], self.store, (shard,))
            footer = self.store.footer("ingest", shard)
            rejects |= {reject.key: f"{reject.reason}: {reject.detail}" for reject in footer.rejected}
            failures |= footer.failed
        return rejects, failures


def test_a_url_of_a_list_is_named_without_its_secrets_and_has_a_copy(corpus):
    [row] = corpus.enroll(corpus.list({"url": f"http://{SECRET}films.example/a.mp4{SIGNED}"}))
    assert row.path == "http://films.example/a.mp4"
    assert row.bytes == 6
    assert corpus.files.opener(row.video_id, row.path)().read() == b"film a"


def test_a_fresh_signature_is_the_same_video_and_nothing_is_downloaded_again(corpus):
    rows = corpus.enroll(corpus.list({"url": f"http://films.example/a.mp4{SIGNED}"}))
    corpus.server.answers["/a.mp4"] = web.cut_off_after(6)
    assert corpus.enroll(corpus.list({"url": "http://films.example/a.mp4?X-Amz-Signature=OTHER"})) == rows
    assert corpus.server.paths() == [f"/a.mp4{SIGNED}", "/a.mp4?X-Amz-Signature=OTHER"]


def test_an_expired_signature_costs_nothing_where_the_copy_is_there(corpus, capsys):
    rows = corpus.enroll(corpus.list({"url": f"http://films.example/a.mp4{SIGNED}"}))
    del corpus.server.answers["/a.mp4"]
    assert corpus.enroll(corpus.list({"url": f"http://films.example/a.mp4{SIGNED}"})) == rows
    assert "404 Not Found: using the existing copy" in capsys.readouterr().err


def test_a_lost_copy_is_named_and_downloaded_again_by_the_same_input(corpus):
    listed = corpus.list({"url": "http://films.example/a.mp4"})
    [row] = rows = corpus.enroll(listed)
    corpus.files.remove(row.video_id)
    with pytest.raises(FileNotFoundError, match="`a2data run` with the same input downloads it again"):
        corpus.files.opener(row.video_id, row.path)
    assert corpus.enroll(listed) == rows
    assert corpus.files.has(row.video_id)


def test_addresses_that_differ_in_their_queries_are_different_videos(corpus):
    def by_query(handler):
        data = b"film " + handler.path[-1:].encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    corpus.server.answers["/watch"] = by_query
    listed = corpus.list(*({"url": f"http://films.example/watch?v={v}"} for v in "123"), {"url": "http://films.example/gone?a"},
                         {"url": "http://films.example/gone?b"})  # fmt: skip
    rows = corpus.enroll(listed)
    assert len({row.video_id for row in rows}) == len(rows) == 5
    assert corpus.enroll(listed) == rows


def test_copies_are_kept_and_decoded_in_an_object_store_too(corpus):
    corpus.store = Store("memory://work-of-test-enrolment")
    corpus.files = SourceFiles(corpus.store)
    corpus.server.answers["/a.mp4"] = data = video.encode(np.zeros((15, 240, 320, 3), np.uint8), 15.0)
    [row] = rows = corpus.enroll(corpus.list({"url": f"http://films.example/a.mp4{SIGNED}"}))
    opener = corpus.files.opener(row.video_id, row.path)
    assert opener().read() == data
    assert len(list(video.read(row.path, opener=opener))) == 15
    assert corpus.enroll(corpus.list({"url": "http://films.example/a.mp4"})) == rows


def test_a_source_that_was_forgotten_leaves_no_copy_and_gets_none(corpus):
    listed = corpus.list({"url": "http://films.example/a.mp4"}, {"url": "http://films.example/b.mp4"})
    row, other = corpus.enroll(listed)
    forget.forget(corpus.store, forget.request_for_source(corpus.store, f"{row.path}{SIGNED}"), [Ingest()])
    assert not corpus.files.has(row.video_id)
    assert corpus.enroll(listed) == [other]
    assert os.listdir(corpus.store.path("sources")) == [other.video_id]
    assert b"SECRET" not in corpus.store.get("forgotten.jsonl")


BROKEN = {
    "/gone.mp4": (None, "404 Not Found"),
    "/cut.mp4": (web.cut_off, "RemoteProtocolError"),
    "/drip.mp4": (web.drip(), "stalled: "),
    "/endless.mp4": (web.endless, "--max-source-bytes"),
    "/inside.mp4": (web.redirect("http://inside.example/x.mp4"), "not a public address"),
    "/file.mp4": (web.redirect("file:///etc/passwd"), "not a valid web address"),
}


def test_a_broken_download_is_the_failure_of_its_video_and_the_others_are_enrolled(corpus):
    corpus.server.answers |= {path: answer for path, (answer, _) in BROKEN.items() if answer}
    urls = [f"http://{SECRET}films.example{path}{SIGNED}" for path in [*BROKEN, "/a.mp4", "/b.mp4"]]
    rows = corpus.enroll(corpus.list(*({"url": url} for url in urls)), limits=Limits(max_bytes=1_000_000, stall_s=3.0))
    read = {row.path for row in rows if not row.unreadable}
    assert read == {"http://films.example/a.mp4", "http://films.example/b.mp4"}
    _, failures = corpus.refused()
    for path, (_, said) in BROKEN.items():
        assert any(
            f"http://films.example{path}: the download failed: " in why and said in why for why in failures.values()
        )
    assert len(os.listdir(corpus.store.path("sources"))) == 2


@pytest.mark.parametrize(
    "url", ["http://inside.example/x.mp4", "file:///etc/passwd", "memory://x.mp4", "simplecache::file:///etc/x"]
)
def test_a_list_may_not_reach_inside(corpus, url):
    [row] = corpus.enroll(corpus.list({"url": url}))
    assert "not a public address" in row.unreadable or "list" in row.unreadable
    assert corpus.server.asked == []


def test_a_flag_lets_lists_name_local_urls(corpus):
    local, host = corpus.file("c.mp4"), f"{corpus.server.url}/a.mp4"
    how = Access(Downloader(allow_local=True), corpus.files)
    enrolment.enroll(corpus.store, [corpus.list({"url": f"file://{local}"}, {"url": host})], 8, how)
    assert [row.unreadable for row in corpus.rows()] == ["", ""]


def test_what_the_command_line_names_is_trusted(corpus):
    enrolment.enroll(corpus.store, [f"{corpus.server.url}/a.mp4{SIGNED}", f"file://{corpus.file('c.mp4')}"], 8)
    assert sorted(row.path for row in corpus.rows()) == [f"file://{corpus.folder}/c.mp4", f"{corpus.server.url}/a.mp4"]


def test_a_list_at_a_web_address_may_name_what_lies_beside_it_but_no_local_file(corpus):
    corpus.server.answers["/lists/list.csv"] = b"path\n../a.mp4\n/etc/passwd\n"
    corpus.server.answers["/lists/../a.mp4"] = b"film a"
    rows = corpus.enroll(f"http://films.example/lists/list.csv{SIGNED}")
    assert {row.path: row.unreadable for row in rows} == {
        "http://films.example/lists/../a.mp4": "",
        "/etc/passwd": "lists at web addresses must not contain local files",
    }


# -- what lies in folders ----------------------------------------------------------------------------------------------


def test_what_is_not_a_regular_file_is_refused_at_once_and_never_opened(corpus):
    os.mkfifo(corpus.folder / "fifo.mp4")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(corpus.folder / "socket.mp4"))
    os.symlink("/dev/zero", corpus.folder / "zero.mp4")
    (corpus.folder / "folder.mp4").mkdir()
    good = corpus.file("good.mp4")
    names = ["fifo.mp4", "socket.mp4", "zero.mp4", "folder.mp4"]
    began = time.monotonic()
    rows = corpus.enroll(str(corpus.folder), corpus.list(*({"path": name} for name in names)))
    assert time.monotonic() - began < 5
    assert {row.path for row in rows if not row.unreadable} == {good}
    _, failures = corpus.refused()
    said = "\n".join(failures.values())
    for name, kind in zip(names, ["a FIFO", "a socket", "a device", "a folder"], strict=True):
        assert f"{corpus.folder}/{name}: is {kind}, not a file" in said


def test_a_fifo_that_is_a_list_is_refused(corpus):
    os.mkfifo(corpus.folder / "list.csv")
    with pytest.raises(ValueError, match="is a FIFO, not a file"):
        corpus.enroll(str(corpus.folder / "list.csv"))


def test_links_that_lead_nowhere_or_in_circles_are_named(corpus, capsys):
    inner = corpus.folder / "films"
    inner.mkdir()
    os.symlink("round.mp4", inner / "round.mp4")
    os.symlink("nowhere", inner / "lost.mp4")
    os.symlink(inner, inner / "again")
    (inner / "good.mp4").write_bytes(b"film")
    rows = corpus.enroll(str(inner))
    assert {os.path.basename(row.path): row.unreadable[:30] for row in rows} == {
        "good.mp4": "",
        "round.mp4": "it cannot be read: Too many le",
        "lost.mp4": "it cannot be read: No such fil",
    }
    assert "skipped 1 links to folders" in capsys.readouterr().err


def test_a_name_that_is_not_utf_8_is_named_and_the_others_are_enrolled(corpus, capsys):
    films = os.fsencode(corpus.folder / "films")
    os.mkdir(films)
    for name in (b"caf\xe9.mp4", b"good.mp4"):
        with open(os.path.join(films, name), "wb") as file:
            file.write(name)
    rows = corpus.enroll(os.fsdecode(films))
    assert sorted(row.path for row in rows) == [
        f"{corpus.folder}/films/caf\\xe9.mp4",
        f"{corpus.folder}/films/good.mp4",
    ]
    _, failures = corpus.refused()
    assert any("caf\\xe9.mp4: its name is not UTF-8: rename it" in why for why in failures.values())


def test_a_file_that_can_be_read_now_is_taken_in_by_the_next_run(corpus):
    listed = corpus.list({"path": "late.mp4"})
    [before] = corpus.enroll(listed)
    corpus.file("late.mp4")
    assert status.is_replaced(before)
    assert [row.unreadable for row in corpus.enroll(listed) if row != before] == [""]


# -- licences ----------------------------------------------------------------------------------------------------------


def conflicts(corpus):
    rejects, _ = corpus.refused()
    return [why for why in rejects.values() if why.startswith("licence conflict")]


def test_two_licences_for_one_path_are_a_reject_that_names_both(corpus):
    corpus.file("a.mp4")
    first = corpus.list({"path": "a.mp4", "license": "CC0"}, name="one.jsonl")
    second = corpus.list({"path": "a.mp4"}, {"path": "a.mp4", "license": "CC-BY-4.0"}, name="two.jsonl")
    corpus.enroll(first, second)
    [why] = conflicts(corpus)
    assert why == f"licence conflict: 'CC0' ({first}, row 1) and 'CC-BY-4.0' ({second}, row 2)"


def test_two_licences_for_the_same_bytes_are_a_reject(corpus):
    corpus.file("a.mp4"), corpus.file("b.mp4")
    corpus.enroll(corpus.list({"path": "a.mp4", "license": "CC0"}, {"path": "b.mp4", "license": "CC-BY"}))
    [why] = conflicts(corpus)
    assert "'CC0'" in why
    assert "'CC-BY'" in why


def test_a_known_video_with_another_licence_is_a_reject_until_the_licence_is_replaced(corpus, capsys):
    corpus.file("a.mp4")
    corpus.enroll(corpus.list({"path": "a.mp4", "license": "CC0"}))
    assert conflicts(corpus) == []
    new = corpus.list({"path": "a.mp4", "license": "CC-BY"}, name="new.jsonl")
    [row] = corpus.enroll(new)
    assert corpus.enroll(new) == [row]
    [why] = conflicts(corpus)
    assert "'CC0' (the work folder" in why
    assert f"'CC-BY' ({new}, row 1)" in why
    assert "two licences" in capsys.readouterr().err
    [row] = corpus.enroll(new, replace_licenses=True)
    assert (row.license, row.license_conflict) == ("CC-BY", "")


def test_a_copy_of_a_known_video_with_another_licence_makes_both_rejects(corpus):
    corpus.file("a.mp4")
    corpus.enroll(corpus.list({"path": "a.mp4", "license": "CC0"}))
    corpus.file("b.mp4")
    corpus.enroll(corpus.list({"path": "b.mp4", "license": "CC-BY"}))
    rejects, _ = corpus.refused()
    assert sorted(why.split(":")[0] for why in rejects.values()) == ["duplicate", "licence conflict"]


def test_a_licence_that_is_stated_once_holds_wherever_the_file_is_named(corpus):
    corpus.file("a.mp4")
    (corpus.folder / "more").mkdir()
    corpus.file("more/copy.mp4")
    listed = corpus.list({"path": "more/copy.mp4", "license": "CC0"})
    assert {row.license for row in corpus.enroll(str(corpus.folder / "a.mp4"), listed)} == {"CC0"}


def test_a_known_video_without_licence_gets_the_one_that_is_stated_later(corpus):
    path = corpus.file("a.mp4")
    corpus.enroll(path)
    [row] = corpus.enroll(corpus.list({"path": "a.mp4", "license": "CC0"}))
    assert (row.license, row.license_conflict) == ("CC0", "")


def test_explain_shows_both_licences(corpus):
    corpus.file("a.mp4")
    corpus.enroll(corpus.list({"path": "a.mp4", "license": "CC0"}, {"path": "./a.mp4", "license": "CC-BY"}))
    assert len(conflicts(corpus)) == 1
    told = explain(corpus.store, corpus.rows()[0].video_id, [Ingest()])
    assert "licence conflict" in told
    assert "'CC0'" in told
    assert "'CC-BY'" in told


# -- what is known of older work folders -------------------------------------------------------------------------------


def test_enrolment_of_nothing_new_leaves_the_manifest_of_an_older_version_as_it_is(corpus):
    path = corpus.file("a.mp4")
    rows = corpus.enroll(path)
    before = corpus.store.footer("manifest", 0).digest
    part = corpus.store.part("manifest", 0)
    written = os.stat(part).st_mtime_ns
    assert corpus.enroll(path) == rows
    assert (corpus.store.footer("manifest", 0).digest, os.stat(part).st_mtime_ns) == (before, written)
