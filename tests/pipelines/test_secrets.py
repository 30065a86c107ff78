"""Passwords and signatures of URLs are searched for in every byte that a run leaves."""

import json

import films_server as web
import numpy as np
import pyarrow.parquet as pq
import pytest

from a2data.media import video
from a2data.records import Video
from a2data.store.source_files import SourceFiles
from a2data.store.tables import Store
from pipelines.cli.main import main
from pipelines.run.recipe import Recipe
from pipelines.sources import enrolment
from pipelines.sources.download import Downloader
from pipelines.sources.manifest import Access

PLANTED = (b"hunter2", b"X-Amz-Signature", b"TOPSECRET")
QUERY = "?X-Amz-Signature=TOPSECRET"


@pytest.fixture(scope="module")
def film():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (240, 320, 3), np.uint8)
    return video.encode([np.roll(picture, 2 * n, 1) for n in range(30)], 15.0)


@pytest.fixture
def server(film):
    with web.serving() as server:
        server.answers = {"/film.mp4": film, "/no.mp4": b"not a film", "/cut.mp4": web.cut_off}
        yield server


def found(folder, said):
    """Where a secret is: files below the folder, and what was printed."""
    texts = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in folder.rglob("*.parquet"):  # pages are compressed
        table = pq.read_table(path)
        texts[f"rows of {path}"] = repr((table.schema.metadata, table.to_pylist())).encode()
    texts |= {"stdout": said.out.encode(), "stderr": said.err.encode()}
    assert len(texts) > 4
    return [(name, secret) for name, data in texts.items() for secret in PLANTED if secret in data]


def test_no_stage_command_writes_or_prints_a_secret(server, tmp_path, capfd):
    secret = server.url.replace("http://", "http://me:hunter2@")
    work = tmp_path / "work"
    names = ["film.mp4", "no.mp4", "cut.mp4", "gone.mp4"]
    lines = [json.dumps({"url": f"{secret}/{name}{QUERY}"}) for name in names]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join([*lines, json.dumps({"url": f"ftp://me:hunter2@films.example/a.mp4{QUERY}"})]))
    store = Store(work)
    how = Access(Downloader(allow_local=True), SourceFiles(store))
    enrolment.enroll(store, [str(listed), f"{secret}/film.mp4{QUERY}", f"{secret}/gone.mp4{QUERY}"], 8, how)
    Recipe().save(store)
    for stage in ("ingest", "segment"):
        main([stage, str(work), "--in-process", "--verbose"] + ["--shot-model", ""] * (stage == "segment"))
    for command in ("failures", "status", "plan", "report"):
        main([command, str(work)])
    [row] = store.read("ingest", 0, Video)
    assert row.path == f"{server.url}/film.mp4"
    assert store.footer("segment", 0).rows == 1
    listed.unlink()
    said = capfd.readouterr()
    assert f"{server.url}/gone.mp4: the download failed" in said.out
    assert found(tmp_path, said) == []


@pytest.mark.slow
def test_a_whole_run_leaves_no_secret_in_shards_and_report(server, tmp_path, capfd):
    secret = server.url.replace("http://", "http://me:hunter2@")
    flags = ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--workers", "1"]
    main(["run", f"{secret}/film.mp4{QUERY}", f"{secret}/gone.mp4{QUERY}", *flags])
    assert found(tmp_path, capfd.readouterr()) == []


@pytest.mark.parametrize(
    "argv",
    [
        ["run", "no-such.mp4", "--work", "W", "--set", "caption.captioner=openai:http://me:hunter2@host:8000/v1#m"],
        ["run", "no-such.mp4", "--work", "W", "--set", "caption.captioner=openai:http://host/v1?key=TOPSECRET#m"],
        ["run", "no-such.mp4", "--work", "s3://key:hunter2@bucket/work"],
        ["run", "no-such.mp4", "--work", "W", "--out", "s3://key:hunter2@bucket/out"],
        ["run", "http://me:hunter2@127.0.0.1:9/list.csv?TOPSECRET", "--work", "W"],
    ],
)
def test_a_secret_in_a_setting_is_refused_and_not_repeated(tmp_path, capfd, argv):
    work = str(tmp_path / "work")
    assert main([work if word == "W" else word for word in argv]) == 2
    said = capfd.readouterr()
    assert "no-such.mp4" not in said.err
    assert not [secret for secret in PLANTED if secret in (said.err + said.out).encode()]
    assert not (tmp_path / "work" / "run.json").exists()
