import json
from dataclasses import replace

import numpy as np
import pytest
from toy_truth import truth

from pipelines.films.truth import Entity, Film, Shot, Truth, Unit, load, save, sight


def test_a_set_comes_back_from_its_folder(tmp_path):
    known = truth()
    save(known, tmp_path)
    back = load(tmp_path)
    assert back == known
    assert all(np.array_equal(a.thumbs, b.thumbs) for a, b in zip(back.films, known.films, strict=True))


def test_soft_edges_are_kept_to_a_grey_level():
    alpha = np.zeros((20, 30), np.float32)
    alpha[4:10, 5:12] = np.linspace(0.1, 1, 7)
    kept = sight(alpha, 0.8, soft=True)
    assert kept.box == (5.0, 4.0, 12.0, 10.0)
    assert np.abs(kept.pixels(20, 30) - alpha).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(sight(alpha, 0.8).pixels(20, 30) > 0, alpha >= 0.5)


def test_a_label_made_by_hand_needs_a_box_only(tmp_path):
    """The example of docs/triplet-bench.md."""
    entity = {"id": "ann", "kind": "human", "nouns": ["woman"], "sights": {"12": {"box": [10, 20, 60, 90]}}}
    shots = [{"start": 0, "end": 40, "place": "yard", "entities": [entity]}]
    film = {
        "file": "a.mp4",
        "fps": 25,
        "frames": 40,
        "width": 160,
        "height": 90,
        "cuts": [],
        "shots": shots,
        "reach": 40,
    }
    (tmp_path / "set.json").write_text(json.dumps({"format": "triplet-truth/1", "tier": "R", "films": ["a.mp4"]}))
    (tmp_path / "a.truth.json").write_text(json.dumps(film))
    (known,) = load(tmp_path).films
    assert known.sight_of(known.shots[0].entities[0], 30).pixels(90, 160).sum() == 50 * 70
    assert [e.id for e in Unit(known, known.shots[0]).expected_entities()] == ["ann"]


def test_an_invalid_file_is_reported(tmp_path):
    save(truth(), tmp_path)
    path = tmp_path / "film0.truth.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"shots": [data["shots"][1], data["shots"][0]]}))
    with pytest.raises(ValueError, match=r"film0.truth.json: a shot from 0 to 20 after one that ends at 40"):
        load(tmp_path)
    path.write_text(json.dumps(data | {"colour": "red"}))
    with pytest.raises(ValueError, match=r"colour.*docs/triplet-bench.md"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"set.json lists film0.mp4, but .*film0.truth.json does not exist"):
        load(tmp_path)


def test_a_frame_belongs_to_its_shot_or_to_a_transition():
    (film, *_) = truth().films
    assert film.shot_at(19) is film.shots[0]
    assert film.shot_at(43) is None


def test_only_what_is_large_and_mostly_visible_must_be_found():
    big, small = np.zeros((90, 160), bool), np.zeros((90, 160), bool)
    big[10:60, 10:40], small[80:85, 100:110] = True, True
    entities = [
        Entity("seen", "human", sights={n: sight(big, 1.0) for n in range(10)}),
        Entity("hidden", "human", sights={n: sight(big, 0.3) for n in range(10)}),
        Entity("gone", "human", sights={n: sight(big, 1.0) for n in range(4)}),
        Entity("small", "object", sights={n: sight(small, 1.0) for n in range(10)}),
        Entity("poster", "poster", sights={n: sight(big, 1.0) for n in range(10)}),
    ]
    shot = Shot(0, 10, entities=entities)
    assert [e.id for e in Unit(Film("a", 25, 10, 160, 90, [], [shot]), shot).expected_entities()] == ["seen"]


def test_a_copy_of_a_take_is_not_a_partner():
    known = truth()
    takes = {("film0.mp4", 0), ("film1.mp4", 20)}  # two of the three shots of ann that could lend one another
    films = [
        replace(f, shots=[replace(s, take="same") if (f.file, s.start) in takes else s for s in f.shots])
        for f in known.films
    ]
    only = [replace(f, shots=[s for s in f.shots if (f.file, s.start) in takes]) for f in films[:2]]
    assert known.eligible["film0.mp4", 0] == {"ann"}
    assert Truth("S", only).eligible["film0.mp4", 0] == set()
    assert Truth("S", only).achievable == []
