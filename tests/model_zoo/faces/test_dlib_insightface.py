import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import mediapipe_networks
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.faces.dlib_insightface import insightface_faces, insightface_folder


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    """A public-domain portrait, 512 x 512, that travels inside scikit-image."""
    return pytest.importorskip("skimage.data").astronaut()


@pytest.fixture(scope="module")
def dlib_faces():
    return mediapipe_networks.network("dlib")


def test_dlib_finds_the_one_face_of_a_portrait_with_its_landmarks_in_order(dlib_faces, astronaut):
    (face,) = dlib_faces(astronaut)
    x0, y0, x1, y1 = face.box
    assert 160 < x0 < 220 < x1 < 290
    assert 50 < y0 < 130 < y1 < 210
    assert 0.5 <= face.score <= 1
    left, right, nose, mouth_left, mouth_right = face.landmarks
    assert left[0] < nose[0] < right[0]
    assert mouth_left[0] < nose[0] < mouth_right[0]
    assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1]) < y1
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == face.embedding.dtype == np.float32
    assert face.embedding.shape == (128,)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)


def test_dlib_knows_a_face_again_when_it_is_brighter_and_mirrored(dlib_faces, astronaut):
    other = np.clip(astronaut * 1.2, 0, 255).astype(np.uint8)[:, ::-1]
    (one,), (two,) = dlib_faces(astronaut), dlib_faces(other)
    assert one.embedding @ two.embedding > cards.card("dlib").match_threshold
    assert 512 - two.box[2] == pytest.approx(one.box[0], abs=12)


def test_dlib_finds_a_small_face(dlib_faces, astronaut):
    small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)
    (face,) = dlib_faces(small)
    assert 30 < face.box[2] - face.box[0] < 60
    assert 80 < face.box[0] < 110


def test_dlib_does_not_detect_faces_in_noise_and_boxes_stay_inside_the_frame(dlib_faces, astronaut):
    assert dlib_faces(np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)) == []
    (cut,) = dlib_faces(astronaut[80:])
    assert cut.box[1] >= 0


def test_a_missing_pack_says_where_it_was_looked_for_and_fetches_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        FileNotFoundError,
        match=f"'buffalo_l' has no weights.*{tmp_path}/insightface/models/buffalo_l.*models fetch buffalo_l",
    ):
        insightface_folder(cards.card("buffalo_l"))
    with pytest.raises(FileNotFoundError, match="buffalo_l"):
        cards.revision("buffalo_l")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["antelopev2", "insightface/models/antelopev2", ".insightface/models/antelopev2"])
def test_a_pack_is_found_where_insightface_keeps_it_and_its_revision_is_that_of_its_files(monkeypatch, tmp_path, place):
    monkeypatch.setenv("A2DATA_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    pack = tmp_path / place
    pack.mkdir(parents=True)
    (pack / "det.onnx").touch()
    assert insightface_folder(cards.card("antelopev2")) == pack
    assert cards.revision("antelopev2") == cards.digest(str(pack))


def test_a_folder_without_onnx_files_is_not_a_pack(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} is not an insightface pack"):
        insightface_folder(cards.card(f"insightface:{tmp_path}"))


def test_the_family_without_a_pack_is_refused_with_what_to_say_instead():
    with pytest.raises(FileNotFoundError, match="insightface:/FOLDER"):
        insightface_folder(cards.card("insightface"))


def fake_insightface(monkeypatch, tmp_path, models=("detection", "recognition")) -> SimpleNamespace:
    """insightface.app with a FaceAnalysis that finds one fixed face and keeps what it was called with."""
    (tmp_path / "det.onnx").touch()
    seen = SimpleNamespace()
    found = {
        "bbox": np.float32([-3, 2, 30, 44]),
        "kps": np.ones((5, 2)),
        "det_score": 0.8,
        "normed_embedding": np.eye(4)[0],
        "pose": np.float32([5, -20, 1]),
    }

    class FaceAnalysis:
        def __init__(self, **given):
            seen.given, self.models = given, dict.fromkeys(models)

        def prepare(self, **given):
            seen.prepared = given

        def get(self, picture):
            seen.picture = picture
            return [SimpleNamespace(**found)]

    monkeypatch.setitem(sys.modules, "insightface", SimpleNamespace(app=SimpleNamespace(FaceAnalysis=FaceAnalysis)))
    monkeypatch.setitem(sys.modules, "insightface.app", sys.modules["insightface"].app)
    return seen


def test_insightface_is_given_blue_first_and_a_fixed_size(monkeypatch, tmp_path):
    seen = fake_insightface(monkeypatch, tmp_path)
    red = np.full((40, 40, 3), (255, 0, 0), np.uint8)
    (face,) = insightface_faces(replace(cards.card("insightface"), weights=str(tmp_path)))(red)
    assert (seen.picture == (0, 0, 255)).all()
    assert seen.prepared == {"ctx_id": -1, "det_size": (640, 640)}
    assert seen.given["name"] == str(tmp_path)
    assert face.box == (0, 2, 30, 40)  # cut to the frame
    assert face.embedding.dtype == np.float32


def test_insightface_uses_the_gpu_it_is_told_to(monkeypatch, tmp_path):
    seen = fake_insightface(monkeypatch, tmp_path)
    insightface_faces(replace(cards.card("insightface"), weights=str(tmp_path)), "cuda:1")
    assert seen.given["providers"][0] == "CUDAExecutionProvider"
    assert seen.prepared["ctx_id"] == 1


@pytest.mark.parametrize(("models", "pose"), [((), None), (("landmark_3d_68",), (5.0, -20.0, 1.0))])
def test_a_face_has_the_pose_where_the_pack_measures_it(monkeypatch, tmp_path, models, pose):
    seen = fake_insightface(monkeypatch, tmp_path, ("detection", "recognition", *models))
    (face,) = cards.load(f"insightface:{tmp_path}")(np.zeros((40, 40, 3), np.uint8))
    assert "landmark_3d_68" in seen.given["allowed_modules"]
    assert face.pose == pose


def test_a_folder_with_a_detector_alone_is_refused(monkeypatch, tmp_path):
    fake_insightface(monkeypatch, tmp_path, models=("detection",))
    with pytest.raises(FileNotFoundError, match="no recognition model"):
        insightface_faces(replace(cards.card("insightface"), weights=str(tmp_path)))


@pytest.mark.parametrize("name", ["dlib", "insightface"])
def test_real_people_are_distinguished_across_videos(corpus, name, dlib_faces):
    from a2data.media.video import read

    def embedding(word: str) -> np.ndarray:
        frames = (f.picture.to_ndarray(format="rgb24") for f in read(str(corpus / "video" / f"intel_asl_{word}.mkv")))
        (face,) = model(next(frames))
        return face.embedding

    mini = corpus / "weights" / "models" / "insightface_mini"
    model = dlib_faces if name == "dlib" else cards.load(f"insightface:{mini}")
    again, no, please = (embedding(word) for word in ("again", "no", "please"))
    same = 0.965 if name == "dlib" else 0.7  # one frame of each, not the mean of many
    assert again @ no > same
    assert max(again @ please, no @ please) < same


def test_every_card_of_people_names_cards_that_there_are_and_permissive_ones_run_permissive_networks():
    from model_zoo.catalogue import CARDS
    from model_zoo.catalogue.people import CARDS as PEOPLE

    for name, card in PEOPLE.items():
        for companion in card.companions:
            other = CARDS[companion]
            assert other.role in ("recognise", "network"), name
            assert card.use != "permissive" or other.use == "permissive", name
            assert other.role == "network" or card.match_threshold == other.match_threshold, name
        if card.fallback:
            assert CARDS[card.fallback].role == card.role, name
    assert {c.use for n, c in PEOPLE.items() if n.startswith("sapiens2")} == {"biometric-restricted"}
    assert {c.use for n, c in PEOPLE.items() if n.startswith("sapiens-")} == {"non-commercial"}
