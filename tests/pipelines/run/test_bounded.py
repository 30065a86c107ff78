"""An executor whose cluster may be gone: what does not return is given up."""

import time

import pytest
import toy

from pipelines.cli import session
from pipelines.cli.main import main
from pipelines.run.bounded import TimeoutExecutor
from pipelines.run.local import InProcessExecutor
from pipelines.run.schedule import ClusterLostError, run

SHARDS = [0, 1, 2, 3]


class Hung(InProcessExecutor):
    def wait(self):
        time.sleep(600)


def test_a_crew_works_as_without_bounds(store):
    assert run(toy.toy(), store, SHARDS, TimeoutExecutor(InProcessExecutor(store))).jobs == 16


def test_a_cluster_that_does_not_answer_ends_the_run(store):
    began = time.monotonic()
    with pytest.raises(ClusterLostError, match=r"has not answered for 0\.5 s; .* re-run the same command"):
        run(toy.toy(), store, SHARDS, TimeoutExecutor(Hung(store), 0.5))
    assert time.monotonic() - began < 10


def test_an_error_of_the_crew_arrives_as_it_is(store):
    class Broken(InProcessExecutor):
        def release_idle(self):
            raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        run(toy.toy(), store, SHARDS, TimeoutExecutor(Broken(store)))


def test_a_command_whose_cluster_is_lost_exits_with_1_and_says_why(tmp_path, capsys, monkeypatch):
    def lost(*_, **__):
        raise ClusterLostError("the Ray cluster has not answered for 40 s")

    monkeypatch.setattr(session, "run_stages", lost)
    (tmp_path / "film.mp4").write_bytes(b"no film")

    assert main(["run", str(tmp_path / "film.mp4"), "--work", str(tmp_path / "work")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "a2data: the Ray cluster has not answered for 40 s"
