"""The command line, from videos to shards: as a user types it, but in this process and on seconds of drawn video."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from drawn_film import QUICK, film

from a2data.store.tables import Store
from pipelines.cli import main as cli
from pipelines.cli import session
from pipelines.run.lock import exclusive_lock
from pipelines.triplets import triplets
from stages.caption.stage import Caption
from stages.match import Match

NAMES = [stage.name() for stage in triplets()]
IN_PROCESS = ["--in-process", "--quiet"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A folder with videos and the work folder of a run over them. Not to be changed."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "my videos").mkdir()
    film(folder / "my videos" / "Été à la mer.mp4", 1)
    film(folder / "my videos" / "b [2].mp4", 2)
    (folder / "my videos" / "no video.mp4").write_bytes(b"not a video at all" * 100)
    assert cli.main(["run", str(folder / "my videos"), "--work", str(folder / "work"), *IN_PROCESS, *QUICK]) == 0
    return folder


@pytest.fixture
def folder(done, tmp_path) -> Path:
    """A copy that a test may change; its tars stand in it, so that they are packed again when something runs."""
    for name in ("my videos", "work"):
        shutil.copytree(done / name, tmp_path / name)
    return tmp_path


def run(folder: Path, *more: str) -> int:
    return cli.main(["run", "--work", str(folder / "work"), *IN_PROCESS, *more])


def times(folder: Path) -> dict[str, int]:
    """Return {path: modification time in ns} of a work folder, without the notes of a run, locks and ledgers."""
    files = [path for path in (folder / "work").rglob("*") if path.is_file()]
    files = [path for path in files if path.name not in ("run.json", "run.lock", "parts.ledger")]
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in files}


def tars(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "work/shards").glob("*.tar")}


def test_a_run_leaves_shards_with_index_and_manifest_and_a_report(done):
    manifest = json.loads((done / "work/shards/manifest.json").read_text())

    assert manifest["samples"] == 2 == pq.read_metadata(done / "work/shards/index.parquet").num_rows
    assert {shard["name"]: shard["sha256"] for shard in manifest["shards"]} == tars(done) != {}
    assert manifest["about"]["stages"]["select"]["settings"]["max_text"] == "inf"
    assert "<html" in (done / "work/report.html").read_text()


def test_a_run_with_nothing_to_do_writes_nothing(done):
    before = times(done)

    assert run(done) == 0
    assert run(done, str(done / "my videos")) == 0
    assert times(done) == before


def test_a_new_video_goes_to_a_new_shard_and_leaves_the_others_alone(folder):
    assert run(folder) == 0  # the tars are at home here now
    before, packed = times(folder), tars(folder)
    new = film(folder / "new.mp4", 3, step_px=0)  # too still to be kept: nobody's reference

    assert run(folder, str(new)) == 0
    store, after = Store(folder / "work"), times(folder)
    assert store.shards("manifest") == [0, 1, 2] == store.shards("match")
    untouched = {
        name
        for name in before
        if name.split("/")[1] in ("manifest", *NAMES) and name.split("/")[1] not in ("retrieve", "curate")
    }
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}
    assert tars(folder) == packed


@pytest.mark.parametrize("stage", NAMES)
def test_a_stage_alone_finds_its_work_done(done, capsys, stage):
    assert cli.main([stage, str(done / "work"), *IN_PROCESS]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0 jobs done"


def test_a_flag_of_a_stage_is_remembered(folder, capsys):
    assert cli.main(["select", str(folder / "work"), "--max-motion", "0.0", *IN_PROCESS]) == 0
    assert "2 jobs done" in capsys.readouterr().out
    assert cli.main(["plan", str(folder / "work")]) == 0
    assert "detect             2 of 2 jobs   2 x input changed" in capsys.readouterr().out
    assert json.loads((folder / "work/run.json").read_text())["settings"]["select"]["max_motion"] == 0.0


def test_status_counts_what_is_done_and_what_failed(done, capsys):
    assert cli.main(["status", str(done / "work")]) == 0
    told = capsys.readouterr().out
    lines = [line.split() for line in told.splitlines()]

    assert [line[0] for line in lines] == ["stage", *NAMES, "shards", "work"]
    assert "never: see `a2data verify`" in told
    assert lines[1] == ["ingest", "2/2", "2", "0", "1"]
    assert lines[len(NAMES)] == ["pack", "2/2", "2", "0", "0"]


def test_plan_says_what_a_setting_would_cost_and_does_not_remember_it(done, capsys):
    assert cli.main(["plan", str(done / "work"), "--set", "match.min_margin=0.2"]) == 0
    told = capsys.readouterr().out

    assert "match              2 of 2 jobs   2 x setting min_margin: 0.05 → 0.2" in told
    assert "caption            0 of 2 jobs" in told
    assert "min_margin" not in (done / "work/run.json").read_text()


def test_programs_get_status_plan_and_failures_as_json(done, capsys):
    rows = {}
    for command in ("status", "plan", "failures"):
        assert cli.main([command, str(done / "work"), "--json"]) == 0
        rows[command] = json.loads(capsys.readouterr().out)

    assert [row["stage"] for row in rows["status"]] == [row["stage"] for row in rows["plan"]] == NAMES
    assert rows["status"][0] == {"stage": "ingest", "fresh": 2, "parts": 2, "done": 2, "rejected": 0, "failed": 1}
    assert rows["plan"][0] == {"stage": "ingest", "todo": 0, "parts": 2, "reasons": {}}
    (failure,) = rows["failures"]
    assert failure["source"] == str(done / "my videos" / "no video.mp4")
    assert "Invalid data" in failure["error"]


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["--version"])
    assert re.fullmatch(r"a2data \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def test_a_file_that_is_not_a_video_is_reported_with_its_path(done, capsys):
    assert cli.main(["failures", str(done / "work")]) == 0
    (line,) = capsys.readouterr().out.splitlines()

    assert line.startswith("ingest shard ")
    assert f"({done / 'my videos' / 'no video.mp4'}): " in line
    assert "Invalid data" in line


def test_explain_knows_a_video_by_its_id(done, capsys):
    store = Store(done / "work")
    (video_id,) = {v for n in store.shards("ingest") for v in store.footer("ingest", n).failed}

    assert cli.main(["explain", str(done / "work"), video_id]) == 0
    assert "no video.mp4" in capsys.readouterr().out


def test_report_goes_where_it_is_told_to(done, tmp_path, capsys):
    assert cli.main(["report", str(done / "work"), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").read_bytes() == (done / "work/report.html").read_bytes()


def test_what_failed_once_is_made_good_by_a_retry(folder, capsys, monkeypatch):
    work = folder / "work"

    def asleep(*_):
        raise TimeoutError("the disk is asleep")

    monkeypatch.setattr(Match, "run", asleep)
    assert run(folder, "--set", "match.min_margin=0.06") == 1
    said = capsys.readouterr()
    assert "3 failed" in said.err
    assert said.err.splitlines()[-1].startswith(
        "a2data: every unit of match failed (2 of 2), most often with TimeoutError: the disk is asleep; only 0 triplets would"
    )
    cli.main(["failures", str(work)])
    assert capsys.readouterr().out.count("Été à la mer.mp4): TimeoutError: the disk is asleep") == 1

    monkeypatch.undo()
    assert run(folder) == 1
    assert "3 failed" in capsys.readouterr().err  # a failure is a result until a retry is requested
    assert cli.main(["retry", str(work), "--stage", "match", *IN_PROCESS]) == 0
    assert "2 triplets" in capsys.readouterr().out
    assert [name for n in (0, 1) for name in Store(work).footer("match", n).failed] == []


def test_a_file_that_was_repaired_is_a_new_video_for_the_next_run(tmp_path, capsys):
    path, store = tmp_path / "broken.mp4", Store(tmp_path / "work")
    path.write_bytes(b"not a video yet")
    assert run(tmp_path, str(path), *QUICK, "--set", "select.min_motion=1") == 1  # no clip is kept: that is quick
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("a2data: every unit of ingest failed (1 of 1), most often with ")
    )
    film(path, 4)

    assert cli.main(["retry", str(tmp_path / "work"), *IN_PROCESS]) == 1
    assert "broken.mp4 has changed since it failed" in capsys.readouterr().err
    assert (store.shards("ingest"), store.footer("ingest", 0).rows) == ([0], 0)
    assert run(tmp_path, str(path)) == 0
    assert (store.shards("pack"), store.footer("ingest", 1).rows) == ([0, 1], 1)


def test_a_tar_that_was_lost_is_packed_again(folder):
    run(folder)
    packed = tars(folder)
    (folder / "work/shards" / min(packed)).unlink()

    assert run(folder) == 0
    assert tars(folder) == packed


def test_a_model_that_does_not_load_stops_the_run_and_is_said_once(folder, capsys, monkeypatch):
    def load(self):
        raise ModuleNotFoundError("model 'x' needs the package 'x': pip install 'a2data[x]'")

    monkeypatch.setattr(Caption, "load", load)
    assert run(folder, "--set", "caption.min_confidence=0.41") == 1
    err = capsys.readouterr().err
    assert err.count("a2data: caption: loading a model failed: model 'x' needs the package 'x': pip install") == 1
    assert len(err.splitlines()) == 3  # the index, the list of failures, the reason
    assert len(list((folder / "work").rglob("*.broken"))) == 1
    monkeypatch.undo()
    assert run(folder) == 0
    assert not list((folder / "work").rglob("*.broken"))


class Absent:
    """Makes a package or module look as if it were not installed."""

    def __init__(self, package, monkeypatch):
        self.package = package
        for name in filter(self.covers, list(sys.modules)):
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setattr(sys, "meta_path", [self, *sys.meta_path])

    def covers(self, name):
        return name == self.package or name.startswith(f"{self.package}.")

    def find_spec(self, name, path=None, target=None):
        if self.covers(name):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_a_command_whose_package_is_missing_names_its_extra(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "pipelines.films.demo", raising=False)
    Absent("skimage", monkeypatch)
    assert cli.main(["demo-films", str(tmp_path / "films")]) == 2
    err = capsys.readouterr().err
    assert err == "a2data: `a2data demo-films` needs the package 'skimage': pip install 'a2data[demo]'\n"


def test_a_run_on_ray_without_ray_names_its_extra(folder, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "pipelines.run.on_ray", raising=False)
    monkeypatch.delattr("pipelines.run.on_ray", raising=False)
    Absent("ray", monkeypatch)
    assert run(folder, "--ray", "auto") == 2
    assert "`a2data run` needs the package 'ray': pip install 'a2data[ray]'" in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_not_taken_for_an_extra(tmp_path, capsys, monkeypatch):
    Absent("pipelines.films.demo", monkeypatch)
    assert cli.main(["demo-films", str(tmp_path / "films")]) == 2
    assert "pip install" not in capsys.readouterr().err


def test_two_runs_do_not_share_a_work_folder(done, capsys):
    with exclusive_lock(Store(done / "work")):
        assert run(done) == 2
    assert "work is in use by process" in capsys.readouterr().err
    assert run(done) == 0


def test_an_interrupt_says_how_to_go_on(done, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "run_jobs", interrupted)
    assert run(done) == 130
    assert capsys.readouterr().err == "a2data: interrupted; re-run the same command to resume\n"


def test_sigterm_says_how_to_resume_and_the_next_sigterm_is_not_caught(done, capsys, monkeypatch):
    monkeypatch.setattr(session, "run_jobs", lambda *_: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    assert run(done) == 143
    assert capsys.readouterr().err == "a2data: terminated; re-run the same command to resume\n"
    assert signal.getsignal(signal.SIGTERM) is before


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
def test_a_run_stopped_by_sigterm_ends_its_workers_and_is_resumed(tmp_path):
    film(tmp_path / "a.mp4", 1)
    words = [str(tmp_path / "a.mp4"), "--work", str(tmp_path / "work"), *QUICK]
    command = [sys.executable, "-m", "pipelines.cli", "run", *words]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while driver.poll() is None and not (tmp_path / "work" / "segment").exists():
        time.sleep(0.05)
    driver.send_signal(signal.SIGTERM)
    assert (
        driver.communicate(timeout=120)[1].splitlines()[-1] == "a2data: terminated; re-run the same command to resume"
    )
    assert driver.returncode == 143
    for _ in range(200):  # the last worker of its group is soon gone
        if not alive(driver.pid):
            break
        time.sleep(0.05)
    assert not alive(driver.pid)
    assert cli.main(["run", *words, *IN_PROCESS]) == 0


def test_a_quiet_run_prints_only_its_result(done, capsys):
    assert run(done) == 0
    assert re.fullmatch(r"\d+ triplets in .*/work/shards\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--work", "W", "--set", "nosuch.x=1"], "unknown stage 'nosuch'; the stages are ingest, segment"),
        (
            ["run", "--work", "W", "--set", "detect.nosuch=1"],
            "detect does not have the setting 'nosuch'; it has model, ",
        ),
        (["run", "--work", "W", "--set", "detect.confidence=high"], "expected float, got 'high'"),
        (["run", "--work", "W", "--set", "detect.confidence=nan"], "expected a number, got 'nan'"),
        (["run", "--work", "W", "--set", "detect.confidence"], "write it as stage.field=value"),
        (["run", "--work", "W", "--set", "detect.model=nosuch"], "detect: no model called 'nosuch'; known are "),
        (["run", "--work", "W", "--set", "pack.out=x"], "set the folder of the shards with `a2data run --out`"),
        (["run", "--work", "W", "--workers", "many"], "--workers 'many': write a number, or stage=number"),
        (["run", "--work", "W", "--workers", "nosuch=2"], "--workers 'nosuch=2': write a number, or stage=number"),
        (["run", "--work", "NEW"], "no videos: pass files, folders, globs or manifests"),
        (["run", "EMPTY", "--work", "NEW"], "does not contain videos (.3gp"),
        (["run", "NOWHERE", "--work", "NEW"], "file or folder not found"),
        (["status", "EMPTY"], "is not a work folder: create one with `a2data run VIDEOS --work"),
        (["detect", "EMPTY"], "is not a work folder"),
        (["explain", "W", "zzz"], "no video, clip or element"),
    ],
)
def test_what_makes_no_sense_is_a_sentence(done, tmp_path, capsys, words, sentence):
    (tmp_path / "EMPTY").mkdir()
    places = {"W": done / "work", **{name: tmp_path / name for name in ("EMPTY", "NEW", "NOWHERE")}}

    assert cli.main([str(places.get(word, word)) for word in words]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("a2data: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["run", "--work", "W", "--profile", "nosuch"], "invalid choice: 'nosuch'"),
        (["run", "--work", "W", "--videos-per-shard", "0"], "'0' is not a whole number of at least 1"),
        (["run", "--work", "W", "--cpus-per-worker", "-1"], "'-1' is not a finite number of at least 0"),
        (["detect", "W", "--confidence", "high"], "expected float, got 'high'"),
        (["retry", "W", "--stage", "nosuch"], "invalid choice: 'nosuch'"),
        (["stauts", "W"], "there is no command 'stauts': did you mean `a2data status`?"),
        (["nosuch"], "there is no command 'nosuch': `a2data --help` lists them"),
    ],
)
def test_a_flag_that_makes_no_sense_is_a_sentence(capsys, words, sentence):
    with pytest.raises(SystemExit) as left:
        cli.main(words)

    assert left.value.code == 2
    assert sentence in capsys.readouterr().err


def test_verbose_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="is not a work folder"):
        cli.main(["status", str(tmp_path), "--verbose"])


@pytest.mark.slow
def test_ray_makes_the_same_shards(done, tmp_path, capsys, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))
    words = ["run", str(done / "my videos"), "--work", str(tmp_path / "work"), *QUICK]
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False
    )  # another cluster may run on this machine
    try:
        assert cli.main([*words, "--ray", "auto", "--cpus-per-worker", "0.5", "--workers", "detect=1"]) == 0
    finally:
        ray.shutdown()

    assert re.search(r"detect\+faces\+.*\+caption\+ground: 2 of 2 jobs", capsys.readouterr().err)
    assert tars(tmp_path) == tars(done)


COMMANDS = ["run", *NAMES, "status", "plan", "failures", "retry", "explain", "report", "demo-films"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys, command):
    with pytest.raises(SystemExit) as left:
        cli.main([command, "--help"])

    assert left.value.code == 0
    assert "--verbose" in capsys.readouterr().out


def test_the_commands_are_these(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])

    told = capsys.readouterr().out
    assert [name for name in COMMANDS if f"    {name}" not in told] == []


def test_an_estimate_runs_a_sample_that_a_run_continues_from(done, tmp_path, capsys):
    shutil.copytree(done / "my videos", tmp_path / "my videos")
    film(tmp_path / "my videos" / "c.mp4", 3)
    flags = ["--work", str(tmp_path / "work"), *IN_PROCESS, *QUICK[:-1], "1"]
    assert cli.main(["estimate", str(tmp_path / "my videos"), *flags, "--sample-shards", "2", "--gpu-price", "2"]) == 0
    told = capsys.readouterr().out
    assert "h of video, extrapolated from 2 shards" in told
    assert re.search(r"^retrieve .* worker h$", told, re.M)
    assert Store(tmp_path / "work").shards("segment") != Store(tmp_path / "work").shards("manifest")
