"""What a command that did its jobs in vain exits with, and what its last line says."""

import pytest
import toy_pairs
from toy_folder import a2data, fail_captions, manifest, run, tars

from a2data.dataset import writer
from a2data.store.folder import Folder

pytestmark = pytest.mark.usefixtures("toy_stages")


def test_a_stage_command_of_which_every_unit_fails_exits_1_and_says_so_last(tmp_path, capsys, monkeypatch, filled):
    work = filled(tmp_path / "w")
    run(work)
    fail_captions(monkeypatch)
    for jobs in (2, 0):  # and again, where the failures are fresh
        capsys.readouterr()
        assert a2data("caption", work) == 1
        said = capsys.readouterr()
        assert said.out == f"{jobs} jobs done\n"
        assert said.err.splitlines()[-1] == (
            "a2data: every unit of caption failed (4 of 4), most often with ValueError: the captioner's answer is not JSON"
        )
    assert a2data("pack", work) == 1
    assert "only 0 triplets would remain" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_pack_publishes_what_it_packs(tmp_path, filled):
    work, out = filled(tmp_path / "w"), tmp_path / "w" / "shards"
    run(work)
    assert a2data("pack", work, "--split", "eval=0.3") == 0
    assert {row.split for row in writer.rows(Folder(str(out)))} <= {"train", "eval"}
    assert {entry["name"] for entry in manifest(out)["shards"]} == set(tars(out))


def test_a_run_that_is_allowed_to_shrink_to_nothing_does_so_and_exits_1(tmp_path, capsys, filled):
    work = filled(tmp_path / "w")
    run(work)
    apart = ("--set", "pack.required_roles=background")
    assert run(work, None, *apart, "--allow-shrink") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "a2data: no triplets remain, 4 before"
    assert tars(tmp_path / "w" / "shards") == {}
    assert run(work, None, *apart) == 0  # there were none before this one


def test_rejects_and_single_failures_and_no_clips_at_all_do_not_fail_the_run(tmp_path, monkeypatch, filled):
    assert run(filled(tmp_path / "alone", {"aa11": "anna"})) == 0  # nobody to pair: rejected
    assert run(filled(tmp_path / "empty", {"aa11": ""})) == 0  # no clip in it
    original = toy_pairs.Captions.run

    def one_fails(self, model, kept):
        if kept[0].clip_id == "aa11-00000000":
            raise ValueError("only this one")
        yield from original(self, model, kept)

    monkeypatch.setattr(toy_pairs.Captions, "run", one_fails)
    assert run(filled(tmp_path / "w")) == 0
