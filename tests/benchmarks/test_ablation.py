import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


import tiny_shards  # noqa: E402

from benchmarks import ablation  # noqa: E402


def test_every_arm_differs_from_the_released_one_in_one_setting():
    first = [dataclasses.asdict(part) for part in ablation.settings_of("released", 8, 0)]
    for arm in list(ablation.ARMS)[1:]:
        mine = [dataclasses.asdict(part) for part in ablation.settings_of(arm, 8, 0)]
        other = {n for one, two in zip(first, mine, strict=True) for n in one if one[n] != two[n]}
        assert len(other - {"singles"}) == 1, arm


def test_an_arm_is_trained_from_the_encoders_and_samples_of_the_one_before(tmp_path, monkeypatch, capsys):
    encoding, settings = ablation.PRESETS["tiny"]
    small = dataclasses.replace(encoding, frames=13, height=32, width=48, augmentations=1, validation_augmentations=1)
    quick = dataclasses.replace(settings, global_batch_size=2, micro_batch_size=2, validate_samples=2)
    monkeypatch.setitem(ablation.PRESETS, "tiny", (small, quick))
    packed = tiny_shards.make(tmp_path / "packed", tars=1)
    rows = [ablation.one(str(packed), tmp_path / "out", arm, 2, 0) for arm in ("released", "cross-2")]
    assert rows[0]["first"] == rows[1]["first"]  # one start, one noise
    assert rows[0]["last"] != rows[1]["last"]
    assert capsys.readouterr().out.count("/start: ") == 1
    lines = ablation.table(rows).splitlines()
    assert len(lines) == 3
    assert "+0.0%" in lines[1]
