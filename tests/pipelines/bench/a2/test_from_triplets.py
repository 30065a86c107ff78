"""Cases from held-out triplets, and what they may not share with what was trained on."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_shards
from PIL import Image

from a2data.dataset import triplet as samples
from a2data.dataset import writer
from a2data.store.folder import Folder
from pipelines.bench.a2 import cases, from_pictures, from_triplets, leakage
from pipelines.bench.a2.cases import Case, Element
from pipelines.cli.main import main
from stages.pack.facts import to_row


def pack(folder: Path, triplets, split=""):
    """Triplets as a data set, each of a component of its own; split: of the last one."""
    rows = []
    for number, triplet in enumerate(triplets):
        name = "" if not split else split if number == len(triplets) - 1 else "train"
        members = iter([(triplet.facts.clip_id, samples.to_members(triplet))])
        rows += [
            to_row(placed, triplet.facts, name, str(number))
            for placed in writer.write(members, Folder(folder), number, 1 << 30, name)
        ]
    writer.finish(Folder(folder), rows, {})
    return folder


def of(number, **changes):
    """A triplet of its own identities, from its own sources."""
    made = tiny_shards.triplet(number)
    given = [replace(g, identity=100 * number + n) for n, g in enumerate(made.facts.references)]
    return replace(made, facts=replace(made.facts, references=given, **changes))


def test_a_triplet_becomes_a_case_with_its_truth(tmp_path):
    home = pack(tmp_path / "shards", [of(n) for n in range(3)])
    drawn = from_triplets.draw(home, "", 2, 0, tmp_path)
    assert len(drawn) == 2
    assert drawn == from_triplets.draw(home, "", 2, 0, tmp_path)
    back = cases.read(cases.write(drawn, tmp_path / "bench"))
    for case in back:
        number = int(case.id[4:6])
        assert case.prompt == tiny_shards.triplet(number).prompt
        assert [(e.role, e.label) for e in case.elements] == [("object", "object"), ("background", "background")]
        assert case.truth.read_bytes() == tiny_shards.triplet(number).video
        assert case.elements[0].path.read_bytes() == tiny_shards.triplet(number).pictures["ref0"]
    back[0].truth.write_bytes(b"another")
    with pytest.raises(ValueError, match="has changed since the case was written"):
        cases.read(tmp_path / "bench")


def test_a_reference_from_the_same_clip_is_none_and_the_split_is_heeded(tmp_path):
    own = of(1)
    same = [replace(g, same_clip=True) for g in own.facts.references]
    home = pack(tmp_path / "shards", [of(0), replace(own, facts=replace(own.facts, references=same)), of(2)], "eval")
    assert [case.id for case in from_triplets.draw(home, "", 9, 0, tmp_path)] == ["clip00-00000000", "clip02-00000000"]
    assert [case.id for case in from_triplets.draw(home, "eval", 9, 0, tmp_path)] == ["clip02-00000000"]
    with pytest.raises(ValueError, match="no split 'test'; splits: eval, train"):
        from_triplets.draw(home, "test", 9, 0, tmp_path)


def test_sources_and_identities_in_common_are_named(tmp_path):
    home = pack(tmp_path / "shards", [of(0), of(1), of(2)], "eval")
    drawn = from_triplets.draw(home, "eval", 9, 0, tmp_path)
    assert from_triplets.find_shared(home, "eval", drawn, [home]) == []
    with pytest.raises(ValueError, match="give their --split"):
        from_triplets.find_shared(home, "", drawn, [home])
    twin = of(5)
    met = [replace(twin.facts.references[0], identity=200), *twin.facts.references[1:]]  # who is in triplet 2, too
    trained = pack(
        tmp_path / "trained", [replace(twin, facts=replace(twin.facts, references=met)), of(6, video_id="clip02")]
    )
    told = from_triplets.find_shared(home, "eval", drawn, [trained])
    assert ["source clip02" in told[0], "identity 200" in told[1]] == [True, True]
    command = ["bench", "make", str(tmp_path / "bench"), "--triplets", str(home), "--split", "eval", "--against"]
    assert main([*command, str(trained)]) == 1


def photo(seed):
    coarse = np.random.default_rng(seed).integers(0, 200, (6, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((180, 120), Image.Resampling.BICUBIC))


def with_picture(number, pixels):
    made = of(number)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return replace(made, pictures={**made.pictures, "ref0": data.getvalue()})


def case_of(path, pixels, **how):
    Image.fromarray(pixels).save(path, **how)
    return Case(path.stem, "", (Element("object", path),))


def test_a_picture_that_was_scaled_and_compressed_again_is_found_by_its_looks(tmp_path):
    on_white = np.full((200, 300, 3), 255, np.uint8)
    on_white[40:160, 60:240] = photo(1)
    home = pack(tmp_path / "shards", [with_picture(0, on_white), with_picture(1, photo(2))])
    smaller = np.asarray(Image.fromarray(on_white).resize((200, 133)))
    mine = [case_of(tmp_path / "copy.jpg", smaller, quality=60), case_of(tmp_path / "other.png", photo(3))]
    assert leakage.overlaps(mine, [home]) == []  # neither bytes nor pixels are the same
    (found,) = leakage.overlaps(mine, [home], "phash")
    assert (found.case, found.sample, found.reference) == ("copy", "clip00-00000000", "ref0")
    assert found.evidence.startswith("looks ")


def test_the_strongest_reason_is_given(tmp_path):
    home = pack(tmp_path / "shards", [with_picture(0, photo(1))])
    with Image.open(io.BytesIO(with_picture(0, photo(1)).pictures["ref0"])) as image:
        case = case_of(tmp_path / "same.png", np.asarray(image), compress_level=1)
    assert [found.evidence for found in leakage.overlaps([case], [home], "phash")] == ["pixels"]
    case.elements[0].path.write_bytes(with_picture(0, photo(1)).pictures["ref0"])
    assert [found.evidence for found in leakage.overlaps([case], [home], "phash")] == ["bytes"]


def test_a_person_in_another_picture_is_found_by_the_face(corpus, tmp_path):
    pytest.importorskip("insightface")
    from a2data.media import video

    ann, again, bea = (
        video.decode((corpus / f"video/intel_asl_{name}.mkv").read_bytes())[0] for name in ("help", "again", "bird")
    )
    trained = with_picture(0, ann)
    people = [replace(g, role="human") if g.name == "ref0" else g for g in trained.facts.references]
    home = pack(tmp_path / "shards", [replace(trained, facts=replace(trained.facts, references=people))])
    mine = []
    for name, frame in (("again", again), ("bea", bea)):
        Image.fromarray(frame).save(tmp_path / f"{name}.png")
        mine.append(Case(name, "", (Element("human", tmp_path / f"{name}.png"),)))
    card = f"insightface:{corpus / 'weights/models/insightface_mini'}"
    found = leakage.overlaps(mine, [home], face_model=card)
    assert "again" in {each.case for each in found}
    assert all(each.evidence.startswith("face ") for each in found)
    assert {each.case: each.evidence for each in found}["again"] > "face 0.65"


def test_drawn_cases_have_no_truth(tmp_path):
    for role in cases.ROLES:
        (tmp_path / "pool" / role).mkdir(parents=True)
        Image.fromarray(photo(1)).save(tmp_path / f"pool/{role}/cup.png")
    (case,) = from_pictures.draw(from_pictures.read_pool(tmp_path / "pool"), 1)
    (back,) = cases.read(cases.write([case], tmp_path / "bench"))
    assert back.truth is None
