import cv2
import numpy as np
import pytest

from model_zoo import cards
from model_zoo.compare import copydetect

torch = pytest.importorskip("torch")


def scene(seed: int, height: int = 240, width: int = 360) -> np.ndarray:
    """A made-up picture: coarse and fine structure, in colour."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(
        rng.integers(0, 256, (6, 9, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    fine = cv2.resize(
        rng.integers(0, 256, (24, 36, 3)).astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    return cv2.addWeighted(coarse, 0.7, fine, 0.3, 0)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def copies(picture: np.ndarray) -> list[np.ndarray]:
    return [
        cv2.resize(picture, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA),
        cv2.resize(picture, (300, 300)),
        jpeg(picture, 25),
        np.clip(picture * 0.7 + 20, 0, 255).astype(np.uint8),
        cv2.GaussianBlur(picture, (0, 0), 2),
    ]


@pytest.fixture(scope="module")
def hashed():
    return cards.load("phash")


def test_a_hash_is_64_numbers_of_unit_length(hashed):
    rows = hashed([scene(0), scene(1, 50, 70)])
    assert rows.shape == (2, 64)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1)
    assert hashed([]).shape == (0, 64)


def test_copies_have_nearly_the_same_hash_and_other_pictures_do_not(hashed):
    same = cards.card("phash").match_threshold
    for seed in range(5):
        rows = hashed([scene(seed), *copies(scene(seed))])
        assert (rows[1:] @ rows[0]).min() > same
    others = hashed([scene(seed) for seed in range(40)])
    assert (others @ others.T)[~np.eye(40, dtype=bool)].max() < same


def test_the_cosine_counts_the_bits_that_differ(hashed):
    a, b = hashed([scene(0), scene(1)])
    differing = int((copydetect.bits(scene(0)) != copydetect.bits(scene(1))).sum())
    assert a @ b == pytest.approx(1 - 2 * differing / 64)


def test_the_hash_follows_its_definition():
    side = copydetect.HASH_PX
    grey = cv2.resize(cv2.cvtColor(scene(3), cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA)
    middles = (np.arange(side) + 0.5) / side
    waves = np.cos(np.pi * np.arange(1, 9)[:, None] * middles)
    block = waves @ grey.astype(np.float64) @ waves.T
    assert copydetect.bits(scene(3)).tolist() == (block > np.median(block)).ravel().tolist()


def test_real_frames_of_two_people_are_not_copies(corpus, hashed):
    from a2data.media import video

    def first(name):
        return next(video.read(str(corpus / "video" / name))).picture.to_ndarray(format="rgb24")

    picture = first("sam2_01_dog.mp4")
    rows = hashed([picture, *copies(picture), first("sam2_bedroom.mp4"), first("sam2_02_cups.mp4")])
    alike = rows[1:] @ rows[0]
    assert alike[:-2].min() > cards.card("phash").match_threshold > alike[-2:].max()


class Means(torch.nn.Module):
    """Stands for SSCD's network: the colours of a 4 x 4 grid over the picture, less their mean, of unit length."""

    def forward(self, x):
        grid = torch.nn.functional.adaptive_avg_pool2d(x, 4).flatten(2)
        return torch.nn.functional.normalize((grid - grid.mean(2, keepdim=True)).flatten(1))


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    path = tmp_path_factory.mktemp("sscd") / "sscd.torchscript.pt"
    torch.jit.script(Means()).save(str(path))
    return path


def test_copies_stay_close_through_a_network_of_torchscript(scripted):
    model = cards.load(f"sscd:{scripted}")
    rows = model([scene(0), *copies(scene(0)), scene(1)])
    assert rows.shape == (7, 48)
    assert rows.dtype == np.float32
    assert np.linalg.norm(rows, axis=1) == pytest.approx(1, abs=1e-5)
    assert (rows[1:6] @ rows[0]).min() > 0.9
    assert rows[6] @ rows[0] < 0.75


def test_pictures_of_many_sizes_give_the_rows_that_each_gives_alone_in_their_order(scripted):
    model = cards.load(f"sscd:{scripted}")
    mixed = [scene(n, *((240, 360), (300, 200))[n % 2]) for n in range(2 * copydetect.BATCH + 5)]
    assert np.allclose(model(mixed), np.concatenate([model([picture]) for picture in mixed]), atol=1e-5)
    assert len(model([])) == 0


def test_the_network_sees_the_whole_picture_with_its_shorter_side_at_288():
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[20:60, 50:150] = 255
    small = copydetect.shrink(picture)
    assert small.shape == (288, 576, 3)
    ys, xs = np.where(small[..., 0] > 127)
    assert (ys.min(), ys.max() + 1) == pytest.approx((20 * 2.88, 60 * 2.88), abs=1)
    assert (xs.min(), xs.max() + 1) == pytest.approx((50 * 2.88, 150 * 2.88), abs=1)
    assert copydetect.shrink(np.zeros((900, 600, 3), np.uint8)).shape == (432, 288, 3)


@pytest.mark.parametrize("size", [(100, 200), (480, 270), (1080, 1920), (289, 288)])
def test_the_network_sees_what_its_authors_recommend(size):
    """`small_288` of the README of facebookresearch/sscd-copy-detection."""
    import torchvision.transforms as t
    from PIL import Image

    normal = t.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
    small_288 = t.Compose([t.Resize(288), t.ToTensor(), normal])
    picture = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    seen = copydetect.normalise(copydetect.shrink(picture))
    assert np.abs(seen - small_288(Image.fromarray(picture)).numpy()).max() < 1e-5


def test_the_error_for_a_file_that_is_not_torchscript_names_the_right_one(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "sscd.pt")
    with pytest.raises(ValueError, match="use the one that ends in"):
        cards.load(f"sscd:{tmp_path / 'sscd.pt'}")
