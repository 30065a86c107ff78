"""Videos, work folder and shards in S3: a real server on this machine, asked by Arrow's client and by s3fs."""

import itertools

import numpy as np
import pytest

pytest.importorskip("moto", reason="the extra dev")
pytest.importorskip("s3fs", reason="the extra s3")

import boto3
import tiny_shards
from s3_server import BUSY, EXPIRED, S3Server
from toy_folder import PEOPLE, a2data, readable, tars
from toy_folder import stages as toy_stages

from a2data.dataset.batch_plan import Bucket
from a2data.dataset.loader import Loader
from a2data.media import video
from a2data.store import ledger
from a2data.store.folder import Folder
from pipelines.cli import main as cli
from pipelines.sources.manifest import sources

BUCKET = Bucket(5, 16, 24)

pytestmark = pytest.mark.usefixtures("toy_stages")


@pytest.fixture(scope="module")
def server():
    running = S3Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": running.url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield running
    running.server.shutdown()


@pytest.fixture
def s3(server):
    """The server without errors and with its count at 0."""
    server.fault = lambda n: None
    server.requests.clear()
    return server


def upload(folder, url: str) -> str:
    """Copy a local folder to S3."""
    there = Folder(url)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        there.put(path.read_bytes(), *path.relative_to(folder).parts)
    return url


@pytest.fixture(scope="module")
def local(filled, tmp_path_factory):
    """A work folder with everything but packed shards, and the shards that a run on the disk makes of a copy."""
    home = tmp_path_factory.mktemp("local")
    filled(home / "work", PEOPLE)
    filled(home / "done", PEOPLE)
    assert a2data("run", "--work", home / "done", "--out", home / "shards") == 0
    return home


def test_a_run_in_s3_packs_the_tars_of_a_local_run_and_the_next_one_writes_nothing(s3, local):
    work, out = upload(local / "work", "s3://bucket/work"), "s3://bucket/shards"
    assert a2data("run", "--work", work, "--out", out) == 0
    assert tars(out) == tars(local / "shards")
    assert len(readable(out)) == len(readable(local / "shards"))

    s3.requests.clear()
    assert a2data("run", "--work", work, "--out", out) == 0
    written = {path.rsplit("/", 1)[-1] for method, path in s3.requests if method in ("PUT", "POST", "DELETE")}
    assert written <= {"run.json", "parts.ledger", ""}  # "": the marker of a folder
    assert cli.main(["verify", out, "--work", work]) == 0


def test_status_costs_a_listing_for_each_table_and_a_few_requests(s3, local, monkeypatch):
    monkeypatch.setattr(ledger, "RACY_NS", 0)
    work = upload(local / "done", "s3://bucket/done")
    assert cli.main(["status", work]) == 0
    s3.requests.clear()
    assert cli.main(["status", work]) == 0
    tables = 1 + len(toy_stages())
    listings = [path for method, path in s3.requests if method == "GET" and path.count("/") < 3]
    assert len(listings) == tables
    assert len(s3.requests) <= tables + 7


def test_a_run_with_nothing_to_do_costs_a_listing_for_each_table_and_a_few_requests(s3, local, monkeypatch):
    monkeypatch.setattr(ledger, "RACY_NS", 0)
    work, out = upload(local / "done", "s3://bucket/idle"), upload(local / "shards", "s3://bucket/idle-shards")
    assert a2data("run", "--work", work, "--out", out, "--take-over") == 0
    assert a2data("run", "--work", work, "--out", out) == 0
    s3.requests.clear()
    assert a2data("run", "--work", work, "--out", out) == 0
    assert len(s3.requests) <= 1 + len(toy_stages()) + 17


def test_a_run_goes_on_when_the_server_is_too_busy_for_every_tenth_request(s3, local):
    work, out = upload(local / "work", "s3://bucket/busy-work"), "s3://bucket/busy-shards"
    s3.fault = lambda n: BUSY if n % 10 == 0 else None
    assert a2data("run", "--work", work, "--out", out) == 0
    s3.fault = lambda n: None
    assert tars(out) == tars(local / "shards")


@pytest.mark.parametrize("requests", [20, 200])
def test_credentials_that_expire_end_a_run_by_name_and_the_next_one_resumes(s3, local, capsys, requests):
    work, out = upload(local / "work", f"s3://bucket/work-{requests}"), f"s3://bucket/shards-{requests}"
    s3.requests.clear()
    s3.fault = lambda n: EXPIRED if n > requests else None
    assert a2data("run", "--work", work, "--out", out) == 2
    assert "credentials" in capsys.readouterr().err
    s3.fault = lambda n: None
    assert a2data("run", "--work", work, "--out", out) == 0
    assert tars(out) == tars(local / "shards")


def test_videos_are_found_by_a_glob_and_read_in_s3(s3, tmp_path):
    frames = np.zeros((6, 48, 64, 3), np.uint8)
    for n in range(2):
        (tmp_path / f"film {n}.mp4").write_bytes(video.encode(frames + n, 12.0))
    upload(tmp_path, "s3://bucket/films")
    found = sources(["s3://bucket/films/*.mp4"])
    assert [row.path for row in found] == [f"s3://bucket/films/film {n}.mp4" for n in range(2)]
    assert [row.path for row in sources([str(tmp_path)])] != [row.path for row in found]
    assert {row.video_id for row in sources([str(tmp_path)])} == {row.video_id for row in found}
    assert all(sum(1 for _ in video.read(row.path)) == 6 for row in found)


@pytest.mark.slow
def test_workers_of_the_loader_read_what_one_process_reads(s3, tmp_path):
    tiny_shards.make(tmp_path / "shards")
    url = upload(tmp_path / "shards", "s3://bucket/samples")
    keys = {}
    for workers in (0, 2):
        stream = iter(Loader(url, seed=0, global_batch_size=1, num_workers=workers, buckets=[BUCKET], view="bytes"))
        keys[workers] = [sample.key for (sample,) in itertools.islice(stream, 6)]
        del stream
    assert keys[0] == keys[2]
