"""`import a2data`, as a program or a notebook uses it, on the toy pipeline and on a corpus written by hand."""

import subprocess
import sys
from importlib.metadata import version

import pyarrow as pa
import pytest
import tiny_corpus
from tiny_corpus import GREEN, GREY, PROMPT, RED, C

import a2data
from a2data.media.images import from_png
from a2data.store.tables import Store
from pipelines import api
from pipelines.run.recipe import Recipe


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> api.Work:
    store = Store(tmp_path_factory.mktemp("api") / "work")
    tiny_corpus.write(store)
    Recipe().save(store)
    return a2data.open(store.root)


def test_the_package_is_light_and_names_its_version():
    script = "import sys, a2data; print(a2data.__version__); print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    assert out[0] == version("a2data") == a2data.__version__
    assert {"numpy", "pyarrow", "pipelines"} & set(out[1].split()) == set()
    with pytest.raises(AttributeError, match="module 'a2data' has no attribute 'nosuch'"):
        a2data.nosuch  # noqa: B018


def test_tables_have_every_row_with_its_shard_and_without_pixels(work):
    clips = work.table("segment")
    assert isinstance(clips, pa.Table)
    assert set(clips["clip_id"].to_pylist()) == {RED, GREY, GREEN}
    assert dict(zip(clips["clip_id"].to_pylist(), clips["shard"].to_pylist(), strict=True))[GREEN] == 1
    assert "video" not in clips.column_names
    assert "clip_id" in clips.to_pandas().columns
    with pytest.raises(ValueError, match="unknown stage 'nosuch'; the tables are manifest, ingest"):
        work.table("nosuch")


def test_status_failures_and_history_are_those_of_the_commands(work):
    status = {row["stage"]: row for row in work.status().to_pylist()}
    assert status["ingest"]["failed"] == 1
    assert C in work.failures()["unit"].to_pylist()
    assert PROMPT in work.explain(RED)
    assert "<td>ingest</td>" in work._repr_html_()
    with pytest.raises(ValueError, match="no video, clip or element"):
        work.explain("zzz")


def test_pictures_and_clips_are_shown_in_a_notebook(work):
    element = f"{RED}/human/0"
    assert work.picture(element)._repr_png_().startswith(b"\x89PNG")
    assert work.picture(element).array().shape[2] in (3, 4)
    assert 'src="data:video/mp4;base64,' in work.clip(RED)._repr_html_()


def test_a_triplet_of_the_shards_has_its_prompt_and_references(pack, tmp_path):
    rows = pack(tmp_path / "shards", 4)
    store = Store(tmp_path)
    Recipe().save(store)
    work = a2data.open(tmp_path)
    assert work.index()["clip_id"].to_pylist() == [row.clip_id for row in rows]

    triplet = work.triplet("clip-003")
    assert triplet.prompt == "A person, clip-003, in a kitchen."
    assert list(triplet.references) == ["ref0", "ref1", "bg"]
    assert (triplet.references["bg"].array() == from_png(triplet.references["bg"].png)).all()
    assert triplet._repr_html_().count("<img ") == 3
    with pytest.raises(ValueError, match="nosuch is not in the shards"):
        work.triplet("nosuch")


def test_a_folder_that_was_never_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a work folder: create one with `a2data run"):
        a2data.open(tmp_path)


@pytest.mark.usefixtures("toy_stages")
def test_a_run_takes_the_flags_of_the_command_and_raises_instead_of_exiting(tmp_path, filled, monkeypatch, capsys):
    from toy_folder import fail_captions, stages

    monkeypatch.setattr(api, "triplets", stages)
    folder, options = filled(tmp_path / "w"), {"in_process": True, "quiet": True}
    done = a2data.run(work=folder, out=tmp_path / "out", settings={"pack.max_references": 3}, **options)
    assert len(done.index()) == 4
    assert done.shards.root == str(tmp_path / "out")
    assert done.recipe.settings["pack"] == {"max_references": 3}

    with pytest.raises(ValueError, match="unrecognized arguments: --nosuch=1"):
        a2data.run(work=folder, nosuch=1)
    with pytest.raises(ValueError, match="argument --videos-per-shard: '0' is not a whole number of at least 1"):
        a2data.run(work=folder, videos_per_shard=0)
    fail_captions(monkeypatch)
    with pytest.raises(a2data.RunError, match="the run failed"):
        a2data.run(work=folder, **options)
    assert set(a2data.open(folder).failures()["stage"].to_pylist()) == {"caption"}
