"""Triplets through real, small encoders into shards of tensors, and what is done again when something changes."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


import tiny_shards  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from a2data.dataset import writer  # noqa: E402
from a2data.dataset.loader import Loader  # noqa: E402
from a2data.media import images  # noqa: E402
from a2data.store.folder import Folder, file_sha256  # noqa: E402
from a2data.store.tables import Store  # noqa: E402
from model_zoo.a2 import encoders as a2_encoders  # noqa: E402
from model_zoo.a2 import references, tiny  # noqa: E402
from pipelines import encode as encoding  # noqa: E402
from pipelines.encode import encode  # noqa: E402
from pipelines.run import schedule  # noqa: E402
from pipelines.run.local import InProcessExecutor  # noqa: E402
from pipelines.run.lock import exclusive_lock  # noqa: E402
from pipelines.train.start import tiny_training_data  # noqa: E402
from stages.encode import augment, settings, stage  # noqa: E402
from stages.encode.settings import Encoding  # noqa: E402
from stages.encode.tensors import choose, pictures  # noqa: E402

HOW = Encoding(frames=13, height=32, width=48, dtype="float32", validation_fraction=0.25)


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return tiny_shards.make(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def start(tmp_path_factory, packed) -> Path:
    folder = tmp_path_factory.mktemp("start")
    tiny.save_initial_checkpoint(folder, *tiny_training_data(str(packed), HOW))
    return folder


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, packed, start) -> Path:
    out = tmp_path_factory.mktemp("encoded")
    encode(str(packed), str(out), start, HOW, log=lambda text: None)
    return out


def tensors(folder: Path, split: str = "train") -> dict[str, dict]:
    loader = Loader(
        folder / split,
        seed=0,
        global_batch_size=1,
        view="encoded",
        index="index.parquet",
        buckets=[(13, 32, 48)],
        tail="fill",
    )
    batches = iter(loader)
    return {s.key: s.tensors for s in (next(batches)[0] for _ in encoding.read_index(Folder(folder / split)))}


def test_every_sample_is_in_one_split_and_holds_what_a_network_is_told(encoded):
    train, held_out = tensors(encoded), tensors(encoded, "held-out")
    assert (len(train), len(held_out)) == (6, 2)
    assert not set(train) & set(held_out)
    one = train[min(train)]
    assert one["video"].shape == (16, 4, 4, 6)
    assert one["condition"].shape == (20, 4, 4, 6)
    assert one["image"].shape == (2 * 17, tiny.DIM)
    assert one["text_empty"].shape == (1, tiny.DIM)
    assert one["text"].shape[0] > 4


def test_the_condition_is_what_the_sampler_would_give(encoded, start):
    triplet = tiny_shards.triplet(0)
    key = triplet.facts.clip_id
    found = {**tensors(encoded), **tensors(encoded, "held-out")}[key]
    prepared = references.prepare(choose(triplet, HOW), 32, 48)
    encoders = a2_encoders.load(start)
    theirs = references.condition(encoders.vae, references.as_tensor(prepared.frames), 13)[0]
    assert torch.equal(found["condition"], theirs)
    assert found["condition"][:4, :, 0, 0].any(0).tolist() == [True, True, False, False]
    nothing = load_file(encoded / "no_references.safetensors")["condition"]
    assert not nothing[:4].any()
    assert torch.equal(nothing[:, -1], theirs[:, -1])  # grey behind the references, too


def test_variants_differ_keep_black_and_white_and_what_is_where():
    picture = np.random.default_rng(0).integers(1, 255, (4, 6, 3), np.uint8)
    picture[0, 0], picture[3, 5] = 0, 255
    made = [augment.augment(picture, n) for n in range(60)]
    assert (made[0] == picture).all()
    assert len({m.tobytes() for m in made}) == 60
    for one in made:
        turned = bool((one[0, 0] != 0).any())
        plain = one[:, ::-1] if turned else one
        assert not plain[0, 0].any()
        assert (plain[3, 5] == 255).all()
        order = np.argsort(picture.reshape(-1, 3), 0)  # a power keeps the order of a colour's values, wherever it went
        assert all(
            any((np.diff(plain[..., c].reshape(-1)[order[:, source]].astype(int)) >= 0).all() for source in range(3))
            for c in range(3)
        )
    assert len({bool((m[0, 0] != 0).any()) for m in made}) == 2


def test_held_out_variants_stay_held_out_and_video_and_references_vary_alike(tmp_path, packed, start):
    how = replace(HOW, augmentations=3, validation_augmentations=2)
    encode(str(packed), str(tmp_path), start, how, log=lambda text: None)
    train, held_out = tensors(tmp_path), tensors(tmp_path, "held-out")
    assert (len(train), len(held_out)) == (18, 4)
    assert not {settings.clip_of(k) for k in train} & {settings.clip_of(k) for k in held_out}
    key = next(k for k in train if k.endswith("-v02"))
    triplet = next(t for n in range(8) if (t := tiny_shards.triplet(n)).facts.clip_id == settings.clip_of(key))
    frames, prepared, _ = pictures(triplet, how)
    encoders = a2_encoders.load(start)
    theirs = references.condition(encoders.vae, references.as_tensor(augment.augment(prepared.frames, 2)), 13)[0]
    assert torch.equal(train[key]["condition"], theirs)
    first = 2 * settings.VARIANT_STRIDE % (len(frames) - 13 + 1)
    assert torch.equal(
        train[key]["video"], a2_encoders.encode_video(encoders, augment.augment(frames[first : first + 13], 2))
    )
    assert torch.equal(train[key]["text"], train[key]["text_empty"])


def test_what_pack_set_aside_for_evaluation_never_trains(tmp_path, packed, start):
    folder = Folder(packed)
    rows = [
        replace(row, split="eval" if row.shard.startswith("00001") else "train") for row in encoding.read_index(folder)
    ]
    (tmp_path / "in").mkdir()
    for old, split in {(row.shard, row.split) for row in rows}:
        (tmp_path / "in" / f"{split}-{old}").write_bytes((packed / old).read_bytes())
    renamed = [replace(row, shard=f"{row.split}-{row.shard}", component=row.split) for row in rows]
    writer.finish(Folder(tmp_path / "in"), renamed, {})
    encode(str(tmp_path / "in"), str(tmp_path / "out"), start, HOW, log=lambda text: None)
    aside = {row.clip_id for row in rows if row.split == "eval"}
    assert set(tensors(tmp_path / "out", "held-out")) == aside
    assert not set(tensors(tmp_path / "out")) & aside


def test_the_encoded_video_decodes_to_the_clip(encoded, start):
    key = tiny_shards.triplet(3).facts.clip_id
    latents = {**tensors(encoded), **tensors(encoded, "held-out")}[key]["video"][None]
    vae = a2_encoders.autoencoder(start / "vae")
    mean, std = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    shown = vae.decode(latents * std + mean).sample[0].movedim(0, -1)
    frames = augment.resize_frames(tiny_shards.video.decode(tiny_shards.triplet(3).video)[:13], 32, 48)
    assert shown.shape == (13, 32, 48, 3)
    assert ((shown + 1) * 127.5 - torch.from_numpy(frames)).abs().mean() < 12


class Jobs:
    """Runs the jobs in this process and keeps the tars of each run's jobs."""

    def __init__(self):
        self.tars = []

    def __call__(self, stages, store, shards, names):
        made = []
        watch = lambda event, about: made.append(names[about[1].job[0]]) if event == "made" else None  # noqa: E731
        self.tars.append(made)
        return schedule.run(stages, store, shards, InProcessExecutor(store), watch)


def test_what_is_there_is_not_encoded_again_and_a_changed_setting_does_it(tmp_path, packed, start):
    run = Jobs()
    names = sorted(p.name for p in packed.glob("*.tar"))

    def again(how: Encoding = HOW) -> list[str]:
        encode(str(packed), str(tmp_path), start, how, run=run, log=lambda text: None)
        return run.tars[-1]

    assert again() == names
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*-*.tar")}
    assert again() == []
    assert before == {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in tmp_path.rglob("*-*.tar")}
    next(tmp_path.glob("train/00000-000-*.tar")).unlink()  # lost: only its own is made again
    assert again() == names[:1]
    cut = next(tmp_path.glob("held-out/01000-000-*.tar"))
    cut.write_bytes(cut.read_bytes()[:512])
    assert again() == names[1:]
    assert {p: data for p, (_, data) in before.items()} == {p: p.read_bytes() for p in tmp_path.rglob("*-*.tar")}
    assert not list(tmp_path.rglob("*.pending"))
    assert again(replace(HOW, reference_order="after")) == names
    for split in settings.SPLITS:
        assert {p.name for p in (tmp_path / split).glob("*.tar")} == {
            row.shard for row in encoding.read_index(Folder(tmp_path / split))
        }
    assert set(before).isdisjoint(tmp_path.rglob("*-*.tar"))


def test_only_tars_whose_samples_change_the_split_are_encoded_again(tmp_path, packed, start):
    run = Jobs()
    for share in (0.25, 0.125):
        how = replace(HOW, validation_fraction=share)
        encode(str(packed), str(tmp_path), start, how, run=run, log=lambda text: None)
    rows = encoding.read_index(Folder(packed))
    before, after = (encoding.choose_held_out([row.clip_id for row in rows], share) for share in (0.25, 0.125))
    assert run.tars[1] == [next(row.shard for row in rows if row.clip_id in before - after)]
    assert set(tensors(tmp_path, "held-out")) == after
    assert set(tensors(tmp_path)) == {row.clip_id for row in rows} - after


def test_an_output_without_the_tables_of_the_runner_is_encoded_again_to_the_same_bytes(
    tmp_path, packed, start, encoded
):
    out = shutil.copytree(encoded, tmp_path / "out")
    shutil.rmtree(out / encoding.STATE)
    run = Jobs()
    encode(str(packed), str(out), start, HOW, run=run, log=lambda text: None)
    assert len(run.tars[0]) == 2
    files = {p.relative_to(encoded): p.read_bytes() for split in settings.SPLITS for p in (encoded / split).iterdir()}
    assert files == {p.relative_to(out): p.read_bytes() for split in settings.SPLITS for p in (out / split).iterdir()}


def test_a_sample_that_fails_is_named_the_others_are_encoded_and_it_can_be_retried(
    tmp_path, packed, start, encoded, monkeypatch
):
    bad, real, run = tiny_shards.triplet(1).facts.clip_id, stage.members, Jobs()

    def members(triplet, *rest):
        if triplet.facts.clip_id == bad:
            raise ValueError("the encoder returned NaN or infinity in video")
        return real(triplet, *rest)

    def again(**more) -> list[str]:
        said: list[str] = []
        encode(str(packed), str(tmp_path), start, HOW, run=run, log=said.append, **more)
        return said

    monkeypatch.setattr(stage, "members", members)
    why = "ValueError: the encoder returned NaN or infinity in video"
    assert again() == [f"failed {bad}: {why}"]
    assert json.loads((tmp_path / "encoding.json").read_text())["failed"] == {bad: why}
    whole = {**tensors(encoded), **tensors(encoded, "held-out")}
    assert {*tensors(tmp_path), *tensors(tmp_path, "held-out")} == set(whole) - {bad}
    monkeypatch.undo()
    assert again() == [f"failed {bad}: {why}"]
    assert again(retry=True) == []
    assert [len(tars) for tars in run.tars] == [2, 0, 1]
    assert {*tensors(tmp_path), *tensors(tmp_path, "held-out")} == set(whole)


def test_two_runs_into_one_folder_are_refused(tmp_path, packed, start):
    with exclusive_lock(Store(tmp_path / encoding.STATE)), pytest.raises(BlockingIOError, match="is in use by process"):
        encode(str(packed), str(tmp_path), start, HOW)


def test_shards_that_were_packed_again_get_a_new_index_of_what_is_encoded(tmp_path, start):
    encode(
        str(tiny_shards.make(tmp_path / "packed", count=8, tars=2)),
        str(tmp_path / "out"),
        start,
        HOW,
        log=lambda _: None,
    )
    encode(
        str(tiny_shards.make(tmp_path / "packed", count=8, tars=1)),
        str(tmp_path / "out"),
        start,
        HOW,
        log=lambda _: None,
    )
    for split in settings.SPLITS:
        rows = encoding.read_index(Folder(tmp_path / "out" / split))
        assert {row.shard for row in rows} == {p.name for p in (tmp_path / "out" / split).glob("*.tar")}
        assert {row.shard[:5] for row in rows} == {"00000"}


def test_other_encoders_have_another_revision(tmp_path, start):
    import shutil

    shutil.copytree(start, tmp_path / "other")
    config = tmp_path / "other" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"z_dim": 16', '"z_dim":  16'))
    assert a2_encoders.revision(start) != a2_encoders.revision(tmp_path / "other")


def test_a_face_stands_for_a_person_without_another_reference_and_for_that_person_alone():
    def given(name, role, identity):
        return SimpleNamespace(name=name, role=role, identity=identity)

    def chosen(*references):
        shades = {g.name: images.to_png(np.full((4, 4, 3), n, np.uint8)) for n, g in enumerate(references)}
        triplet = SimpleNamespace(facts=SimpleNamespace(references=references), pictures=shades)
        return [(role, int(picture[0, 0, 0])) for role, picture in choose(triplet, HOW)]

    face, other, whole = given("ref0", "face", 3), given("ref1", "face", 4), given("ref2", "human", 3)
    assert chosen(face, given("bg", "background", 9)) == [("human", 0), ("background", 1)]
    assert chosen(face, other, whole) == [("human", 2), ("human", 1)]


def test_a_sample_without_usable_references_is_left_out_by_name(tmp_path, start):
    packed = tiny_shards.make(tmp_path / "packed", roles=("hair",))
    said: list[str] = []
    with pytest.raises(
        ValueError, match=r"has no usable training sample: it has no reference with a role in human\|object\|background"
    ):
        encode(str(packed), str(tmp_path / "out"), start, HOW, log=said.append)
    assert "skipped clip00-00000000: it has no reference with a role in human|object|background" in said


def test_a_folder_without_an_index_a_lost_and_a_cut_off_tar_are_sentences(tmp_path, packed, start):
    import shutil

    with pytest.raises(ValueError, match=r"is not a folder of shards: index\.parquet is missing"):
        encode(str(tmp_path), str(tmp_path / "out"), start, HOW)
    shutil.copytree(packed, tmp_path / "copy")
    second = next(tmp_path.glob("copy/00001-000-*.tar"))
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"00001-000-\w+\.tar is truncated or damaged"):
        encode(str(tmp_path / "copy"), str(tmp_path / "out"), start, HOW, log=lambda text: None)
    second.unlink()
    with pytest.raises(ValueError, match=r"lacks 00001-000-\w+\.tar, which its index lists"):
        encode(str(tmp_path / "copy"), str(tmp_path / "out"), start, HOW, log=lambda text: None)


def test_what_comes_out_of_an_encoder_as_nan_fails_with_its_name(tmp_path, packed, start):
    import shutil

    from safetensors.torch import save_file

    shutil.copytree(start, tmp_path / "start")
    path = next((tmp_path / "start" / "vae").glob("*.safetensors"))
    weights = load_file(path)
    weights["mean"][0] = float("nan")
    save_file(weights, path, {"format": "pt"})
    said: list[str] = []
    with pytest.raises(ValueError, match=r"has no usable training sample: .* NaN or infinity in video"):
        encode(str(packed), str(tmp_path / "out"), tmp_path / "start", HOW, log=said.append)
    assert "failed clip00-00000000: ValueError: the encoder returned NaN or infinity in video" in said
    assert len(said) == 8


def test_holding_out_everything_is_refused():
    with pytest.raises(ValueError, match="2 of 2 samples would be held out"):
        encoding.choose_held_out(["a", "b"], 1.0)
    assert encoding.choose_held_out(["a", "b", "c"], 0.0) == set()
    assert encoding.choose_held_out(["a", "b", "c"], 0.01) == encoding.choose_held_out(["c", "b", "a"], 0.01)


def test_frames_are_cropped_in_the_middle_to_the_pixel():
    frames = np.zeros((1, 32, 80, 3), np.uint8)
    frames[:, :, 16:64] = 255
    assert (augment.resize_frames(frames, 32, 48) == 255).all()
    frames = np.zeros((1, 64, 48, 3), np.uint8)
    frames[:, 16:48] = 255
    assert (augment.resize_frames(frames, 32, 48) == 255).all()


def test_how_it_was_made_stands_beside_it(encoded, start):
    about = json.loads((encoded / "encoding.json").read_text())
    assert about["encoders"] == a2_encoders.revision(start)
    assert about["frames"] == 13
    assert len(about["held_out"]) == 2


def test_an_index_of_an_older_version_is_a_sentence(tmp_path, packed, start):
    old = shutil.copytree(packed, tmp_path / "old")
    table = pq.read_table(old / "index.parquet")
    pq.write_table(table.drop_columns(["roles"]), old / "index.parquet")
    with pytest.raises(ValueError, match=r"lacks the column 'roles': .*; repack the data set"):
        encoding.encode(str(old), str(tmp_path / "out"), start, HOW)


def test_the_command_encodes_what_a_training_then_takes(tmp_path, packed, start, capsys):
    from pipelines.cli.main import main

    out = tmp_path / "encoded"
    assert main([*command(packed, start, out), "--in-process"]) == 0
    said = capsys.readouterr()
    assert f"{out}: 6 samples to train on, 2 held out" in said.out
    assert "encode: 2 of 2 jobs, 8 done" in said.err
    assert main([*command(packed, start, out), "--in-process"]) == 0
    assert capsys.readouterr().err == ""  # nothing is done twice


# -- other processes ---------------------------------------------------------------------------------------------------


def command(packed: Path, start: Path, out: Path) -> list[str]:
    flags = ["--frames", "13", "--height", "32", "--width", "48", "--validation-fraction", "0.25", "--dtype", "float32"]
    return ["encode", str(packed), "--out", str(out), "--model", str(start), "--device", "cpu", *flags]


def tars(folder: Path) -> dict[str, str]:
    """Return {split/name: sha256} of the tars of both splits."""
    return {
        str(p.relative_to(folder)): file_sha256(p) for split in settings.SPLITS for p in folder.glob(f"{split}/*.tar")
    }


@pytest.mark.slow
def test_a_killed_run_is_resumed_with_the_same_tars(tmp_path, start):
    packed = tiny_shards.make(tmp_path / "packed", count=32, tars=8)
    words = command(packed, start, tmp_path / "made")
    running = subprocess.Popen([sys.executable, "-m", "pipelines.cli", *words, "--quiet"], start_new_session=True)
    store = Store(tmp_path / "made" / encoding.STATE)
    try:
        began = time.monotonic()
        while len(store.shards("encode")) < 2 and running.poll() is None and time.monotonic() - began < 240:
            time.sleep(0.02)
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    done = {shard: os.stat(store.part("encode", shard)).st_mtime_ns for shard in store.shards("encode")}
    assert 2 <= len(done) < 8
    assert not (tmp_path / "made" / "encoding.json").exists()
    run = Jobs()
    encode(str(packed), str(tmp_path / "made"), start, HOW, run=run)
    assert len(run.tars[0]) == 8 - len(done)
    assert done == {shard: os.stat(store.part("encode", shard)).st_mtime_ns for shard in done}
    encode(str(packed), str(tmp_path / "whole"), start, HOW)
    assert tars(tmp_path / "made") == tars(tmp_path / "whole")
    assert not list((tmp_path / "made").glob("*/*.pending"))


@pytest.mark.slow
def test_actors_encode_the_same(tmp_path, packed, start, encoded):
    ray = pytest.importorskip("ray")
    from pipelines.cli.main import main
    from pipelines.run.on_ray import device

    paths = os.pathsep.join([os.getcwd(), *filter(None, sys.path)])
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False,
             runtime_env={"env_vars": {"PYTHONPATH": paths}})  # fmt: skip
    try:
        assert device("auto", None) == "cpu"
        assert main([*command(packed, start, tmp_path / "made"), "--ray", "auto"]) == 0
    finally:
        ray.shutdown()
    assert tars(tmp_path / "made") == tars(encoded)
    for split in settings.SPLITS:
        one, other = (pq.read_table(folder / split / "index.parquet") for folder in (encoded, tmp_path / "made"))
        assert one.equals(other)
