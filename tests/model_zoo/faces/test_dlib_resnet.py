import numpy as np
import pytest

from model_zoo.faces import dlib_resnet
from model_zoo.faces.dlib_insightface import _dlib_weights


@pytest.fixture(scope="module")
def weights():
    pytest.importorskip("dlib")
    try:
        return _dlib_weights("dlib_face_recognition_resnet_model_v1.dat")
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


def test_the_embeddings_are_those_of_dlib(weights):
    import dlib
    from skimage.data import astronaut

    theirs = dlib.face_recognition_model_v1(weights)
    picture = astronaut()
    chips = np.stack([picture[20:170, 130:280], picture[20:170, 280:130:-1], 255 - picture[100:250, :150]])
    expected = [theirs.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips]
    assert np.abs(dlib_resnet.network(weights)(chips) - expected).max() < 1e-5


def test_another_file_is_refused_with_its_path(tmp_path):
    other = tmp_path / "landmarks.dat"
    other.write_bytes(b"con_4\x01\x02\x01\x01\x01\x01\x01\x01\x01\x01\0\0\0\0")
    with pytest.raises(ValueError, match=r"landmarks\.dat: 1 layers"):
        dlib_resnet.network(other)
