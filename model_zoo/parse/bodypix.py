"""BodyPix: 24 body parts by a MobileNet of 1.5 MB, through TensorFlow Lite (Papandreou et al. 2018, arXiv 1803.08225).

It segments bodies, not garments. The trunk counts as covered; a limb is separated from skin by the colour of the face, so that a
long sleeve is an upper garment and a bare arm is not. It cannot distinguish a top from a dress or a skirt from trousers, and its
trunk extends to the legs, so that the hips of trousers count as upper garment; hair and hats are part of its face, and it has no
accessories. Its output is coarse: a cell is 16 px.
"""

import cv2
import numpy as np

from model_zoo.parse.builtin import ellipse, is_skin, largest, to_lab
from model_zoo.parse.sapiens_segformer import Box, Parser, nonempty, without_specks
from model_zoo.roles import Card
from model_zoo.weights import find

STRIDE = 16  # px of its input between the cells of its maps; the first cell is at the first pixel
# Its part numbers: 0, 1 face; 2 to 9 arms, front and back; 10, 11 hands; 12, 13 trunk; 14 to 21 legs; 22, 23 feet.
FACE, ARMS, TRUNK, LEGS, FEET = (0, 1), tuple(range(2, 10)), (12, 13), tuple(range(14, 22)), (22, 23)
NOTHING = 255


def bodypix(card: Card, device: str = "cpu") -> Parser:
    """BodyPix (MobileNet) as a TFLite file; on the CPU. See model_zoo/parse/sapiens_segformer.py. Raises FileNotFoundError.

    Parts are "face", "upper", "lower" and "shoes". `face` is the box of the head; if it is None, the network's own face gives the
    skin colour, and without either, skin is unknown: then only the trunk is an upper garment.
    """
    weights = find(card)
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(weights), num_threads=1)
    network.allocate_tensors()

    def parse(person: np.ndarray, mask: np.ndarray, face: Box | None) -> dict[str, np.ndarray]:
        return by_cover(person, np.where(mask, body_parts(network, person), NOTHING), mask, face)

    return parse


def body_parts(network: object, person: np.ndarray) -> np.ndarray:
    """Return the likeliest of the 24 parts at each pixel, (h, w) uint8; arbitrary outside the person.

    Its own mask of the person is not used: it has holes at prints on garments, and the detector's is finer.
    """
    read = {d["name"]: d for d in network.get_output_details()}  # type: ignore[attr-defined]
    (taken,) = network.get_input_details()  # type: ignore[attr-defined]
    _, high, wide, _ = taken["shape"]
    height, width = person.shape[:2]
    scale = min(high / height, wide / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.full((1, high, wide, 3), 128, np.uint8)  # grey is 0 to the network
    shrink = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[0, : size[1], : size[0]] = cv2.resize(person, size, interpolation=shrink)
    network.set_tensor(taken["index"], canvas)  # type: ignore[attr-defined]
    network.invoke()  # type: ignore[attr-defined]

    def maps(name: str) -> np.ndarray:
        """Return the logits of an output, (cells down, cells across, values), from its bytes."""
        step, zero = read[name]["quantization"]
        return (network.get_tensor(read[name]["index"])[0].astype(np.float32) - zero) * step  # type: ignore[attr-defined]

    back = np.array([width / size[0], height / size[1]], np.float32) * STRIDE
    return at_pixels(maps("float_part_heatmaps"), back, (height, width)).argmax(0).astype(np.uint8)


def at_pixels(cells: np.ndarray, step: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return (rows, columns, values) maps as (values, h, w), bilinear; cells are `step` px apart, across and down."""
    across = np.tile(np.arange(size[1], dtype=np.float32) / step[0], (size[0], 1))
    down = np.tile(np.arange(size[0], dtype=np.float32)[:, None] / step[1], (1, size[1]))
    layers = [np.ascontiguousarray(cells[..., k]) for k in range(cells.shape[2])]
    return np.stack([cv2.remap(m, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for m in layers])


def by_cover(person: np.ndarray, body: np.ndarray, mask: np.ndarray, head: Box | None) -> dict[str, np.ndarray]:
    """Return garments from body parts (NOTHING for none): the trunk, and the parts of limbs without the colour of the face."""
    face, trunk = largest(np.isin(body, FACE)), np.isin(body, TRUNK)
    if head is None and face.any():
        x, y, width, height = cv2.boundingRect(face.astype(np.uint8))
        head = (x, y, x + width, y + height)
    if head is None:
        return nonempty([("upper", without_specks(trunk))])
    bare = is_skin(to_lab(person), mask & ellipse(head, mask.shape, centre=0.62, across=0.22, down=0.12))
    covered = cv2.dilate(bare.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0  # else a bare arm leaves its outline
    found = {
        "face": face,
        "upper": trunk | (np.isin(body, ARMS) & covered),
        "lower": np.isin(body, LEGS) & covered,
        "shoes": np.isin(body, FEET) & covered,
    }
    return nonempty((part, without_specks(area)) for part, area in found.items())
