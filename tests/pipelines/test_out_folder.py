"""A folder of shards belongs to one work folder; nothing in it is lost to another, to a crash or to a run that went wrong."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import toy_pairs
from toy_folder import KNOWN, OTHERS, PEOPLE, a2data, fail_captions, manifest, readable, restored, run, tars

from a2data.dataset import writer
from a2data.records import Packed
from a2data.store.folder import Folder
from a2data.store.tables import Store
from pipelines.cli import session
from pipelines.run.lock import exclusive_lock

pytestmark = pytest.mark.usefixtures("toy_stages")
STRANGER = "train-00007-000.tar"


# -- two owners --------------------------------------------------------------------------------------------------------


def test_a_second_work_folder_with_the_same_out_folder_is_refused(tmp_path, capsys, filled):
    out, first = tmp_path / "out", filled(tmp_path / "w")
    assert run(first, out) == 0
    before, packed = manifest(out), tars(out)
    second = filled(tmp_path / "w2", OTHERS)
    capsys.readouterr()

    assert run(second, out) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"belongs to the work folder {first}" in said
    assert "--take-over" in said
    assert (manifest(out), tars(out)) == (before, packed)
    assert not (tmp_path / "w2" / "run.json").exists()


def test_a_taken_over_folder_loses_what_its_manifest_listed_only_once_new_tars_are_published(tmp_path, filled):
    out = tmp_path / "out"
    assert run(filled(tmp_path / "w", OTHERS), out) == 0
    (out / STRANGER).write_bytes(b"something else")
    before = tars(out)
    assert run(filled(tmp_path / "w2"), out, "--take-over") == 0

    assert manifest(out)["owner"]["work"] == str(tmp_path / "w2")
    assert {entry["name"] for entry in manifest(out)["shards"]} | {STRANGER} == set(tars(out))
    assert set(before) & set(tars(out)) == {STRANGER}
    assert run(tmp_path / "w", out) == 2  # its former owner is refused from now on


def test_a_copied_work_folder_does_not_touch_the_shards_of_the_original(tmp_path, capsys, filled):
    out = tmp_path / "out"
    assert run(filled(tmp_path / "w"), out) == 0
    before, packed = manifest(out), tars(out)
    shutil.copytree(tmp_path / "w", tmp_path / "w2")
    with pytest.MonkeyPatch.context() as patch:
        fail_captions(patch)
        for command in (["run", "--work"], ["retry"], ["pack"], ["forget", "--source", "aa11"]):
            capsys.readouterr()
            assert a2data(*command, tmp_path / "w2") == 2
            assert "--take-over" in capsys.readouterr().err

    assert (manifest(out), tars(out)) == (before, packed)
    assert run(tmp_path / "w") == 0


def test_a_copied_work_folder_gets_its_own_id_the_first_time_that_it_runs(tmp_path, filled):
    run(filled(tmp_path / "w"))
    shutil.copytree(tmp_path / "w", tmp_path / "w2")
    assert run(tmp_path / "w2") == 0
    first, second = (json.loads((tmp_path / name / "work.json").read_text()) for name in ("w", "w2"))

    assert first["id"] != second["id"]
    assert second == {"id": second["id"], "made_in": str(tmp_path / "w2"), "copied_from": [first["id"]]}
    assert run(tmp_path / "w2") == 0
    assert json.loads((tmp_path / "w2" / "work.json").read_text()) == second


@pytest.mark.parametrize("place", [shutil.copytree, shutil.move])
@pytest.mark.parametrize("out", [None, "w/packed"])
def test_a_work_folder_with_its_shards_inside_can_be_copied_and_moved(tmp_path, place, out, filled):
    run(filled(tmp_path / "w"), out and tmp_path / out)
    inside = "packed" if out else "shards"
    packed = tars(tmp_path / "w" / inside)
    place(tmp_path / "w", tmp_path / "w2")

    assert run(tmp_path / "w2") == 0
    assert tars(tmp_path / "w2" / inside) == packed != {}
    assert manifest(tmp_path / "w2" / inside)["owner"]["work"] == str(tmp_path / "w2")
    assert not (tmp_path / "w").exists() or tars(tmp_path / "w" / inside) == packed


def test_shards_may_be_beside_the_tables(tmp_path, filled):
    work = filled(tmp_path / "w")
    assert run(work, work) == 0
    assert run(work) == 0
    assert {entry["name"] for entry in manifest(work)["shards"]} == set(tars(work)) != set()


def test_a_damaged_id_is_reported_with_its_path(tmp_path, filled, capsys):
    work = filled(tmp_path / "w")
    for text in ("{", "[1]", '{"id": "x"}'):
        (tmp_path / "w" / "work.json").write_text(text)
        assert run(work) == 2
        assert f"{work}/work.json is damaged" in capsys.readouterr().err


def test_shards_behind_a_link_are_not_inside_a_copied_work_folder(tmp_path, capsys, filled):
    (tmp_path / "disk").mkdir()
    work = Path(filled(tmp_path / "w"))
    (work / "shards").symlink_to(tmp_path / "disk")
    assert run(work) == 0
    shutil.copytree(work, tmp_path / "w2", symlinks=True)

    assert run(tmp_path / "w2") == 2
    assert "belongs to the work folder" in capsys.readouterr().err


def test_a_moved_work_folder_takes_its_shards_elsewhere_over(tmp_path, capsys, filled):
    out = tmp_path / "out"
    run(filled(tmp_path / "w"), out)
    packed = tars(out)
    shutil.move(tmp_path / "w", tmp_path / "w2")

    assert run(tmp_path / "w2") == 2
    assert "pass --take-over" in capsys.readouterr().err
    assert run(tmp_path / "w2", None, "--take-over") == 0
    assert tars(out) == packed


def test_a_folder_with_other_files_is_refused_and_they_are_never_removed(tmp_path, capsys, filled):
    out, work = tmp_path / "out", filled(tmp_path / "w")
    out.mkdir()
    (out / STRANGER).write_bytes(b"of another program")
    assert run(work, out) == 2
    assert f"holds files that this work folder did not write ({STRANGER})" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [STRANGER]

    assert run(work, out, "--take-over") == 0
    assert run(work) == 0
    assert (out / STRANGER).read_bytes() == b"of another program"


def test_a_strangers_file_that_appears_later_is_left_alone(tmp_path, filled):
    out, work = tmp_path / "out", filled(tmp_path / "w")
    run(work, out)
    (out / STRANGER).write_bytes(b"of another program")
    (out / "00000-000.tar").write_bytes(b"called like an old shard")
    packed = tars(out)
    toy_pairs.fill(Store(work), PEOPLE | OTHERS)

    assert run(work, None, "--set", "pack.max_references=7") == 0
    assert packed[STRANGER] == tars(out)[STRANGER]
    assert packed["00000-000.tar"] == tars(out)["00000-000.tar"]


def test_a_file_of_another_program_with_a_name_that_is_needed_is_not_replaced(tmp_path):
    name = next(writer.write([("a", {"json": b"{}"})], Folder(tmp_path / "a"), 0)).shard
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / name).write_bytes(b"of another program")

    with pytest.raises(FileExistsError, match="was not written by this work folder"):
        list(writer.write([("a", {"json": b"{}"})], Folder(tmp_path / "b"), 0))
    assert (tmp_path / "b" / name).read_bytes() == b"of another program"
    shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)  # a copy of the tar itself does no harm
    assert len(list(writer.write([("a", {"json": b"{}"})], Folder(tmp_path / "b"), 0))) == 1


def test_shards_of_before_there_were_owners_are_adopted_by_the_work_folder_that_packed_them(tmp_path, filled):
    out, work = tmp_path / "out", filled(tmp_path / "w")
    run(work, out)
    about = manifest(out)
    del about["owner"], about["index"]
    (out / "manifest.json").write_text(json.dumps(about))
    (tmp_path / "w" / "work.json").unlink()
    other = filled(tmp_path / "w2", OTHERS)

    assert run(other, out) == 2
    assert run(work) == 0
    assert manifest(out)["owner"]["work"] == work


def test_a_copy_does_not_adopt_shards_of_before_there_were_owners_inside_its_original(tmp_path, filled, capsys):
    work = filled(tmp_path / "w")
    out = tmp_path / "w" / "shards"
    run(work)
    about = manifest(out)
    del about["owner"], about["index"]
    (out / "manifest.json").write_text(json.dumps(about))
    (tmp_path / "w" / "work.json").unlink()
    recipe = json.loads((tmp_path / "w" / "run.json").read_text())
    (tmp_path / "w" / "run.json").write_text(json.dumps(recipe | {"out": str(out)}))  # what --out did to paths inside
    shutil.copytree(work, tmp_path / "w2")

    assert run(tmp_path / "w2") == 2
    assert f"is inside the work folder {work}" in capsys.readouterr().err
    assert run(work) == 0


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda _: b'{"shards": 3}', None])
def test_a_damaged_or_missing_manifest_is_written_again_by_the_work_folder_whose_tars_are_there(
    tmp_path, filled, damage
):
    out = tmp_path / "out"
    assert run(filled(tmp_path / "w"), out) == 0
    whole, path = manifest(out), out / "manifest.json"
    path.unlink() if damage is None else path.write_bytes(damage(path.read_bytes()))
    shutil.copytree(tmp_path / "w", tmp_path / "copy")

    assert run(tmp_path / "copy", out) == 2
    assert run(filled(tmp_path / "other", OTHERS), out) == 2
    assert run(tmp_path / "w", out) == 0
    assert manifest(out) == whole


def test_a_hostile_manifest_names_no_file_outside_to_be_removed(tmp_path, filled):
    out, work = tmp_path / "out", filled(tmp_path / "w")
    (tmp_path / "precious.tar").write_bytes(b"precious")
    (tmp_path / "00000-000.tar").write_bytes(b"precious")
    out.mkdir()
    names = ["../precious.tar", "../00000-000.tar", str(tmp_path / "precious.tar"), 7]
    (out / "manifest.json").write_text(json.dumps({"about": "x", "shards": [*({"name": name} for name in names), "x"]}))
    (out / "replaced.json").write_text(json.dumps(names[:3]))

    assert run(work, out, "--take-over") == 0
    assert (tmp_path / "precious.tar").exists()
    assert (tmp_path / "00000-000.tar").exists()


# -- runs that went wrong ----------------------------------------------------------------------------------------------


def test_a_captioner_that_answers_nonsense_costs_no_tar(tmp_path, capsys, monkeypatch, filled):
    work, out = filled(tmp_path / "w"), tmp_path / "w" / "shards"
    assert run(work) == 0
    before, packed, clips = manifest(out), tars(out), readable(out)
    with monkeypatch.context() as patch:
        fail_captions(patch)
        for _ in range(2):
            capsys.readouterr()
            assert run(work) == 1
            said = capsys.readouterr().err.splitlines()[-1]
            assert "every unit of caption failed (4 of 4)" in said
            assert "--allow-shrink" in said
            assert (manifest(out), tars(out), readable(out)) == (before, packed, clips)
        assert a2data("retry", work) == 1

    assert a2data("retry", work) == 0
    assert (manifest(out), tars(out)) == (before, packed)


def test_a_run_that_would_leave_fewer_than_half_publishes_them_only_if_it_is_told_to(
    tmp_path, capsys, monkeypatch, filled
):
    work, out = filled(tmp_path / "w"), tmp_path / "w" / "shards"
    run(work)
    packed, clips = tars(out), readable(out)
    few = [*("--set", "pack.split=eval=0.01"), *("--set", "pack.max_references=3")]

    def captions(self, model, kept):
        if kept[0].clip_id == "aa11-00000000":
            yield from original(self, model, kept)

    original = toy_pairs.Captions.run
    monkeypatch.setattr(toy_pairs.Captions, "run", captions)
    monkeypatch.setattr(toy_pairs.Captions, "version", 2)
    assert run(work, None, *few) == 1
    assert "only 1 triplets would remain" in capsys.readouterr().err.splitlines()[-1]
    assert packed.items() <= tars(out).items()
    assert readable(out) == clips
    assert run(work, None, *few, "--allow-shrink") == 0
    assert readable(out) == ["aa11-00000000"]
    assert {entry["name"] for entry in manifest(out)["shards"]} == set(tars(out))
    assert [path.name for path in out.iterdir() if path.name.endswith(".pending")] == []


def test_old_tars_go_after_the_new_index_is_in_place(tmp_path, monkeypatch, filled):
    out, work = tmp_path / "w" / "shards", filled(tmp_path / "w")
    run(work)
    old, clips = set(tars(out)), readable(out)
    removed = []

    def remove(self, *names):
        if names[-1] in old:
            removed.append(names[-1])
            assert {row.shard for row in writer.rows(Folder(str(out)))} & old == set()
            assert readable(out) == clips
        original(self, *names)

    original = Folder.remove
    monkeypatch.setattr(Folder, "remove", remove)
    assert run(work, None, "--set", "pack.split=eval=0.3") == 0
    assert set(removed) == old
    assert old & set(tars(out)) == set()


class Killed(BaseException):
    """What ends a run at once."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory, filled):
    """A finished work folder with its shards inside. Not to be changed."""
    home = tmp_path_factory.mktemp("whole") / "w"
    filled(home)
    assert run(home) == 0
    return home.rename(home.with_name("whole"))


@pytest.mark.parametrize("write", range(1, 13))
def test_a_run_that_is_killed_at_any_write_leaves_a_data_set_and_the_next_one_cleans_up(whole, monkeypatch, write):
    work = restored(whole)
    out = work / "shards"
    clips, left = readable(out), [write]
    change = ("--set", "pack.split=eval=0.3")  # all tars get other names

    def counted(method):
        def call(self, *args):
            if self.base == str(out):
                left[0] -= 1
                if not left[0]:
                    raise Killed
            return method(self, *args)

        return call

    with monkeypatch.context() as patch:
        for name in ("publish", "remove"):
            patch.setattr(Folder, name, counted(getattr(Folder, name)))
        with pytest.raises(Killed):
            run(work, None, *change)
    assert readable(out) == clips

    other = ("--set", "pack.split=test=0.4")  # so that the tars of the killed run are of no use
    assert run(work, None, *other) == 0
    assert readable(out) == clips
    assert {e["name"]: e["sha256"] for e in manifest(out)["shards"]} == tars(out) != {}
    assert {path.name for path in out.iterdir()} == {
        *tars(out),
        "index.parquet",
        "manifest.json",
        "README.md",
        "croissant.json",
        "run.lock",
    }


def test_a_killed_first_run_has_claimed_its_folder(tmp_path, monkeypatch, filled):
    out, work = tmp_path / "out", filled(tmp_path / "w")
    with monkeypatch.context() as patch:
        patch.setattr(session, "run_jobs", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run(work, out)
    (out / f"draft.{'a' * 32}.tmp").write_bytes(b"half a tar")

    assert run(filled(tmp_path / "w2"), out) == 2
    assert run(work) == 0
    assert len(readable(out)) == 4
    assert list(out.glob("*.tmp")) == []


# -- at the same time --------------------------------------------------------------------------------------------------


def test_two_runs_do_not_share_an_out_folder(tmp_path, capsys, filled):
    out = tmp_path / "out"
    with exclusive_lock(Folder(str(out))):
        assert run(filled(tmp_path / "w"), out) == 2
    assert "out is in use by process" in capsys.readouterr().err


def _first_run(work: str, out: str, barrier) -> None:
    barrier.wait()
    raise SystemExit(run(work, out))


def test_of_two_first_runs_at_the_same_time_one_owns_the_folder(tmp_path, filled):
    context = multiprocessing.get_context("fork")
    works = [filled(tmp_path / "w"), filled(tmp_path / "w2")]
    barrier = context.Barrier(2)
    both = [context.Process(target=_first_run, args=(work, str(tmp_path / "out"), barrier)) for work in works]
    for process in both:
        process.start()
    for process in both:
        process.join(60)

    codes = {work: process.exitcode for work, process in zip(works, both, strict=True)}
    assert sorted(codes.values()) == [0, 2]
    assert codes[manifest(tmp_path / "out")["owner"]["work"]] == 0
    assert len(readable(tmp_path / "out")) == 4


# -- object stores -----------------------------------------------------------------------------------------------------


def test_an_object_store_has_owners_too(tmp_path, capsys, filled):
    out = f"memory://{tmp_path}/out"
    work = filled(tmp_path / "w")
    assert run(work, out) == 0
    packed = tars(out)
    assert len(readable(out)) == 4 >= len(packed) > 0
    assert run(filled(tmp_path / "w2"), out) == 2
    assert "belongs to the work folder" in capsys.readouterr().err

    assert run(work, None, "--set", "pack.split=eval=0.3") == 0
    assert set(packed) & set(tars(out)) == set()
    assert set(Folder(out).names()) == {*tars(out), "index.parquet", "manifest.json", "README.md", "croissant.json"}


def test_a_work_folder_in_an_object_store_has_an_id_and_a_copy_of_it_another(tmp_path, filled):
    work, copy = (f"memory://{tmp_path}/{name}" for name in ("w", "w2"))
    for url in (work, copy):
        toy_pairs.fill(Store(url), OTHERS)
    assert run(work) == 0
    Store(copy).put(Store(work).get("work.json"), "work.json")

    assert run(copy, f"{work}/shards") == 2
    assert run(copy) == 0
    first, second = (json.loads(Store(url).get("work.json")) for url in (work, copy))
    assert (first["made_in"], second["made_in"]) == (work, copy)
    assert second["copied_from"] == [first["id"]]


def test_pairing_again_in_an_object_store_loses_no_part(tmp_path):
    work = f"memory://{tmp_path}/grown"
    for people in (OTHERS, PEOPLE | OTHERS):
        toy_pairs.fill(Store(work), people)
        assert run(work) == 0
    store = Store(work)
    assert store.shards("retrieve") == store.shards("manifest")
    assert len(readable(f"{work}/shards")) > 2


def test_a_run_whose_folder_was_claimed_meanwhile_publishes_nothing(tmp_path, capsys, monkeypatch, filled):
    out = f"memory://{tmp_path}/out"
    work, other = filled(tmp_path / "w"), filled(tmp_path / "w2")
    claimed = {}
    original = session.run_jobs

    def overtaken(*args):
        if not claimed:
            claimed["code"] = -1
            claimed["code"] = run(other, out, "--take-over")
            claimed["manifest"] = manifest(out)
        return original(*args)

    monkeypatch.setattr(session, "run_jobs", overtaken)
    assert run(work, out) == 2
    assert f"was taken over by {other} after this run started" in capsys.readouterr().err
    assert claimed["code"] == 0
    assert manifest(out) == claimed["manifest"]


def test_the_index_of_a_killed_run_does_not_pass_for_that_of_the_manifest(tmp_path, filled):
    out, work = tmp_path / "w" / "shards", filled(tmp_path / "w")
    run(work)
    good = (out / "index.parquet").read_bytes()
    shutil.copy(out / "index.parquet", tmp_path / "index.parquet")
    writer.finish(Folder(str(tmp_path / "empty")), list[Packed](), {})
    shutil.copy(tmp_path / "empty" / "index.parquet", out / "index.parquet")

    assert run(work) == 0
    assert (out / "index.parquet").read_bytes() == good


# -- forget ------------------------------------------------------------------------------------------------------------


def test_what_is_forgotten_does_not_count_among_what_must_be_left(tmp_path, filled):
    people = OTHERS | {"gg77": KNOWN["gg77"]}
    work, out = filled(tmp_path / "w", people), tmp_path / "w" / "shards"
    run(work)
    assert len(readable(out)) == 6

    assert a2data("forget", work, "--source", "gg77") == 0
    assert readable(out) == ["dd44-00000075", "ee55-00000000"]
    assert all(b"gg77-0" not in path.read_bytes() for path in out.iterdir())
    assert {entry["name"] for entry in manifest(out)["shards"]} == set(tars(out))
