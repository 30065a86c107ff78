"""Pictures and masks as arrays: cut-outs, compositing on white, RLE, hashes. Pure functions with numpy and OpenCV."""

import hashlib
import struct
import zlib

import cv2
import numpy as np

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 in pixels, x1 and y1 exclusive
MAX_PIXELS = 1 << 25  # 33.5 million: 8K
STAMP_PX = 48  # side of the square to which `stamp` scales a cut-out
INSIDE = 128  # bit of a stamp's pixel that is inside the mask
PNG = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}  # chunks that define pixels
PNG_COLOURS = {2: "RGB", 3: "palette", 6: "RGBA"}  # supported colour types, with at most 8 bits per channel


def to_rle(mask: np.ndarray) -> bytes:
    """Encode an (h, w) bool mask: height, width, then run lengths in row-major order, zeros first, as LEB128 integers.

    >>> to_rle(np.array([[0, 1], [1, 0]], bool)).hex()
    '0202010201'
    """
    flat = np.asarray(mask, bool).ravel()
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    runs = np.diff(bounds).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return b"".join(_leb128(n) for n in (*mask.shape, *runs))


def _leb128(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def from_rle(rle: bytes) -> np.ndarray:
    """Decode the output of `to_rle` to an (h, w) bool mask. Raises ValueError if the runs do not fill it, or above MAX_PIXELS."""
    numbers, n, shift = [], 0, 0
    for byte in rle:
        if shift > 35:
            raise ValueError("RLE has a run of more than 2^35 pixels")
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(n)
            n = shift = 0
    height, width, *runs = numbers
    # before the memory for them is taken
    if sum(runs) != height * width or height * width > MAX_PIXELS:
        raise ValueError(f"RLE has {sum(runs)} pixels, but its mask is {height} x {width}, at most {MAX_PIXELS}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(height, width)


def rle_size(rle: bytes) -> tuple[int, int]:
    """Return height and width of a mask encoded by `to_rle` without decoding its pixels."""
    numbers, n, shift = [], 0, 0
    for byte in rle[:20]:
        n |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(n)
            n = shift = 0
    return numbers[0], numbers[1]


def clamp(box: Box, height: int, width: int, margin: float = 0.0) -> tuple[int, int, int, int]:
    """Return the whole pixels that a box covers inside the frame, x0, y0, x1, y1, at least one pixel wide and high.

    margin: added on each side of the box before, as a fraction of its width and height.
    """
    across, down = margin * (box[2] - box[0]), margin * (box[3] - box[1])
    x0, y0 = (max(0, min(int(np.floor(v)), n - 1)) for v, n in ((box[0] - across, width), (box[1] - down, height)))
    x1, y1 = (
        max(low + 1, min(int(np.ceil(v)), n))
        for v, low, n in ((box[2] + across, x0, width), (box[3] + down, y0, height))
    )
    return x0, y0, x1, y1


def crop(picture: np.ndarray, box: Box) -> np.ndarray:
    """Return the part of an (h, w, ...) picture or mask inside the box, see `clamp`: a view, to which can be assigned."""
    x0, y0, x1, y1 = clamp(box, *picture.shape[:2])
    return picture[y0:y1, x0:x1]


def bounds(mask: np.ndarray) -> Box:
    """Return the tightest box around a non-empty (h, w) bool mask."""
    x0, y0, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return float(x0), float(y0), float(x0 + width), float(y0 + height)


def cut_out(frame: np.ndarray, mask: np.ndarray, box: Box) -> np.ndarray:
    """Return the box of a frame as (h, w, 4) uint8 RGBA with unchanged colours and alpha 255 inside the mask, 0 outside."""
    return np.dstack([crop(frame, box), np.where(crop(mask, box), 255, 0).astype(np.uint8)])


def stamp(rgba: np.ndarray) -> bytes:
    """Return a cut-out, (h, w, 4) uint8 RGBA, as it is compared with others: cropped to its mask, in a small square, in grey.

    STAMP_PX**2 bytes, row by row: bit 7 is the mask, the others are half the mean grey level of what is inside; then the number
    of pixels inside the mask, 4 bytes, little-endian.
    """
    alpha = (rgba[..., 3] > 0).view(np.uint8)
    x, y, width, height = cv2.boundingRect(alpha)
    rows, columns = slice(y, y + height), slice(x, x + width)
    weight = alpha[rows, columns].astype(np.float32)
    grey = cv2.cvtColor(rgba[rows, columns], cv2.COLOR_RGBA2GRAY) * weight
    # area averaging that excludes pixels outside the mask
    shown = cv2.resize(cv2.merge([grey, weight]), (STAMP_PX, STAMP_PX), interpolation=cv2.INTER_AREA)
    total, covered = shown[..., 0], shown[..., 1]
    level = np.minimum(total / np.maximum(covered, 1e-6) / 2, INSIDE - 1).astype(np.uint8)
    small = np.where(covered >= 0.5, level | INSIDE, 0).astype(np.uint8)
    return small.tobytes() + cv2.countNonZero(alpha).to_bytes(4, "little")


def on_white(rgba: np.ndarray, box: Box | None = None, height: int = 0, width: int = 0) -> np.ndarray:
    """Composite an RGBA cut-out over white, (h, w, 3) uint8. With a box, place it there in a white frame of height x width."""
    alpha = rgba[..., 3:].astype(np.float32) / 255
    flat = np.rint(rgba[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    if box is None:
        return flat
    frame = np.full((height, width, 3), 255, np.uint8)
    crop(frame, box)[:] = flat
    return frame


def to_png(picture: np.ndarray) -> bytes:
    """Encode (h, w, 3) RGB or (h, w, 4) RGBA uint8 as PNG. Equal pixels give equal bytes."""
    code = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, code))
    if not ok:
        raise ValueError(f"an array of shape {picture.shape} cannot be encoded as PNG")
    return data.tobytes()


def to_jpeg(picture: np.ndarray) -> bytes:
    """Encode (h, w, 3) uint8 RGB as JPEG."""
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not ok:
        raise ValueError(f"an array of shape {picture.shape} cannot be encoded as JPEG")
    return data.tobytes()


def from_png(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG to (h, w, 3) RGB or (h, w, 4) RGBA uint8; an animation to its still picture.

    Raises ValueError for bytes that are not a PNG, for a damaged one, for grey or 16 bits, and for more than max_pixels.
    """
    height, width = png_size(data)
    if height * width > max_pixels:
        raise ValueError(f"a picture of {height} x {width} pixels, more than {max_pixels}")
    picture = cv2.imdecode(np.frombuffer(png_pixels(data), np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.dtype != np.uint8 or picture.shape not in ((height, width, 3), (height, width, 4)):
        raise ValueError(f"{len(data)} bytes that are not a valid PNG")
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGB)


def png_size(data: bytes) -> tuple[int, int]:
    """Return height and width in px from the header of a PNG. Raises ValueError for formats that `from_png` does not read."""
    if data[:8] != PNG or data[12:16] != b"IHDR" or len(data) < 33:
        raise ValueError(f"{len(data)} bytes that are not a valid PNG")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    if colour not in PNG_COLOURS or depth > 8:
        raise ValueError(f"a PNG of colour type {colour} with {depth} bits; RGB or RGBA with 8 bits are read")
    if not height or not width:
        raise ValueError(f"a PNG of {height} x {width} pixels")
    return height, width


def png_pixels(data: bytes) -> bytes:
    """Return a PNG with only the chunks that define pixels, since compressed text and profiles may unpack to gigabytes.

    Raises ValueError if it is truncated or a checksum is wrong.
    """
    chunks, offset = [PNG], 8
    while offset < len(data):
        size, kind = struct.unpack_from(">I4s", data, offset) if offset + 8 <= len(data) else (0, b"")
        end = offset + 12 + size
        if end > len(data):
            break
        if kind in PNG_PIXELS:
            if zlib.crc32(data[offset + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
                raise ValueError(f"a PNG with a damaged chunk {kind.decode()} at byte {offset}")
            chunks.append(data[offset:end])
        if kind == b"IEND":
            return b"".join(chunks)
        offset = end
    raise ValueError(f"a PNG that is truncated at byte {len(data)}")


def sha16(data: bytes) -> str:
    """Return the first 16 hex digits of the sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def thumb(picture: np.ndarray) -> np.ndarray:
    """Return a grey or RGB picture as a grey (18, 24) uint8 thumbnail, by area averaging."""
    grey = picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (24, 18), interpolation=cv2.INTER_AREA)


def thumbs(data: bytes) -> np.ndarray:
    """Return Clip.thumbnails as an array, (t, 18, 24) uint8."""
    return np.frombuffer(data, np.uint8).reshape(-1, 18, 24)


def iou(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    return intersection / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection)
