"""Reward training on planted pairs, its figures by hand, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tiny_shards  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from a2data.dataset import pair as pairs  # noqa: E402
from a2data.dataset import writer  # noqa: E402
from a2data.dataset.triplet import to_members  # noqa: E402
from a2data.media import video  # noqa: E402
from a2data.store.folder import Folder  # noqa: E402
from model_zoo.reward import motion  # noqa: E402
from pipelines.cli.main import main  # noqa: E402
from pipelines.prefer import reward  # noqa: E402
from pipelines.prefer.distort import DISTORTIONS  # noqa: E402
from pipelines.prefer.reward import EncodedPair  # noqa: E402
from pipelines.prefer.reward_settings import RewardSettings  # noqa: E402
from stages.pack.facts import to_row  # noqa: E402

SETTINGS = RewardSettings(epochs=30, batch_size=16)


def moving(seed):
    """A textured square that moves over a texture, (14, 32, 48, 3)."""
    rng = np.random.default_rng(seed)
    back, front = rng.integers(0, 256, (32, 48, 3), np.uint8), rng.integers(0, 256, (12, 12, 3), np.uint8)
    frames = np.repeat(back[None], 14, 0)
    for n, frame in enumerate(frames):
        x = 2 + n * (1 + seed % 2)
        frame[8:20, x : x + 12] = front
    return frames


def written(folder, judged, split=lambda n: "eval" if n % 4 == 0 else "train"):
    """A data set of pairs: (number, kind, better frames, worse frames, tie) each."""
    base, rows = tiny_shards.triplet(0), []
    made = {"train": [], "eval": []}
    for n, kind, better, worse, tie in judged:
        key = f"clip{n:02d}-00000000-{kind}-3"
        videos = [video.encode(frames, 15.0, 4) for frames in (better, worse)]
        pair = pairs.Pair(f"clip{n:02d}-00000000", kind, 3, tie, "rule", *map(pairs.sha256, videos))
        facts = replace(base.facts, clip_id=key)
        made[split(n)].append(replace(base, facts=facts, video=videos[0], rejected=videos[1], pair=pair))
    for name, triplets in made.items():
        samples = sorted((t.facts.clip_id, to_members(t)) for t in triplets)
        facts = {t.facts.clip_id: t.facts for t in triplets}
        rows += [to_row(p, facts[p.key], name, p.key[:6]) for p in writer.write(samples, Folder(folder), 0, split=name)]
    writer.finish(Folder(folder), rows, {})
    return str(folder)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    judged = []
    for n in range(24):
        frames = moving(n)
        for kind in ("frozen", "jitter"):
            judged.append((n, kind, frames, DISTORTIONS[kind](frames, 3, np.random.default_rng(n)), False))
        judged.append((n, "same", frames[:-1], frames[1:], True))
    return written(tmp_path_factory.mktemp("planted"), judged)


def test_a_reward_model_finds_planted_preferences_and_ties(planted, tmp_path):
    found = reward.train(planted, tmp_path, SETTINGS, log=lambda text: None)
    assert (found["pairs"], found["ties"]) == (18, 6)
    assert found["accuracy_without_ties"]["value"] >= 0.9
    assert found["accuracy_with_ties"]["value"] >= 0.8
    assert set(found["by_kind"]) == {"frozen", "jitter"}
    assert json.loads((tmp_path / "reward.json").read_text())["held_out"] == found
    assert "accuracy with ties" in reward.to_text(found)
    again = motion.reward(None, "cpu")
    again.load_state_dict(load_file(tmp_path / "reward.safetensors"))
    other = reward.train(planted, tmp_path / "again", SETTINGS, log=lambda text: None)
    assert other == found  # depends on the seed alone


def test_preferences_that_are_turned_round_are_learned_too(planted, tmp_path):
    """The model has no preference of its own."""
    judged = [
        (n, kind, DISTORTIONS[kind](moving(n), 3, np.random.default_rng(n)), moving(n), False)
        for n in range(16)
        for kind in ("frozen", "jitter")
    ]
    found = reward.train(written(tmp_path / "turned", judged), tmp_path / "out", SETTINGS, log=lambda text: None)
    assert found["accuracy_without_ties"]["value"] >= 0.9


def test_accuracy_and_calibration_equal_a_count_by_hand():
    """Rewards are given: better by 3, better by 1 (a tie is likelier at k = 5), worse by 1, and a tie."""
    rows = [("a", 3.0, 0.0, False), ("b", 1.0, 0.0, False), ("c", 0.0, 1.0, False), ("d", 0.5, 0.5, True)]
    held_out = [EncodedPair(key, "kind", tie, True, chosen, rejected) for key, chosen, rejected, tie in rows]

    class Given:
        eval = staticmethod(lambda: None)

        def __call__(self, inputs):
            return torch.tensor(inputs)

    found = reward.evaluate(Given(), held_out, 5.0)
    assert found["accuracy_without_ties"]["value"] == pytest.approx(2 / 3)
    assert found["accuracy_with_ties"]["value"] == pytest.approx(2 / 4)  # a and d
    error, bins = reward.calibration(np.array([0.1, 0.15, 0.9, 0.95]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert [each["count"] for each in bins] == [2, 2]
    assert error == pytest.approx((2 * abs(0.125 - 0.5) + 2 * abs(0.925 - 1)) / 4)


def test_bad_input_is_reported(planted, tmp_path, capsys):
    few = written(tmp_path / "few", [(n, "frozen", moving(n), moving(n + 1), False) for n in range(4)])
    with pytest.raises(FloatingPointError, match="reward of the pair clip"):
        reward.train(few, tmp_path / "a", replace(SETTINGS, learning_rate=1e30), log=lambda text: None)
    assert not (tmp_path / "a").exists()
    assert main(["reward", "train", few, "--out", str(tmp_path / "a"), "--learning-rate", "1e30"]) == 1
    assert capsys.readouterr().err.startswith("a2data: the reward of the pair clip")
    a, b = moving(0), moving(1)
    disagree = written(tmp_path / "d", [(0, "frozen", a, b, False), (1, "frozen", b, a, False)])
    with pytest.raises(ValueError, match="clip00-00000000-frozen-3 and clip01-00000000-frozen-3 disagree"):
        reward.train(disagree, tmp_path / "b", SETTINGS)
    single = written(tmp_path / "s", [(1, "frozen", a, b, False)])
    with pytest.raises(ValueError, match="1 pairs to train on and 0 held out"):
        reward.train(single, tmp_path / "c", SETTINGS)
    with pytest.raises(ValueError, match="does not have pairs"):
        reward.train(str(tiny_shards.make(tmp_path / "plain", count=2, tars=1)), tmp_path / "c", SETTINGS)
    with pytest.raises(ValueError, match="tie_k"):
        reward.train(planted, tmp_path / "c", replace(SETTINGS, tie_k=1.0))
    with pytest.raises(ValueError, match="reward-tiny does not start from"):
        reward.train(planted, tmp_path / "c", replace(SETTINGS, start="x"))
