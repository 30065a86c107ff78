"""What a shot looks like without what moves in it: the temporal median, after the camera's own motion is taken out."""

from collections.abc import Sequence

import cv2
import numpy as np

STILL_PX = 1.0  # mean motion of the corners below which the camera counts as standing


def cameras(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each picture of a shot the homography, (3, 3) float64, that carries it over the middle one; all identities where
    the camera stands."""
    height, width = pictures[0].shape[:2]
    middle = len(pictures) // 2
    found = [np.eye(3) if t == middle else camera(p, pictures[middle]) for t, p in enumerate(pictures)]
    if all(shift(h, width, height) < STILL_PX for h in found):
        return [np.eye(3) for _ in pictures]
    return found


def as_seen(pictures: Sequence[np.ndarray], views: Sequence[np.ndarray], here: int) -> list[np.ndarray]:
    """The pictures of a shot as the camera of picture `here` would have seen them; what they do not show is its own."""
    height, width = pictures[here].shape[:2]
    back = np.linalg.inv(views[here])
    out = []
    for picture, view in zip(pictures, views, strict=True):
        carry = back @ view
        if shift(carry, width, height) < 1e-6:
            out.append(picture)
        else:
            own = pictures[here].copy()
            out.append(cv2.warpPerspective(picture, carry, (width, height), own, borderMode=cv2.BORDER_TRANSPARENT))
    return out


def plates(pictures: Sequence[np.ndarray], views: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each (h, w, 3) uint8 picture of a shot, the picture without what moves, as that picture's camera saw it.

    The pictures are brought over the middle one by their views (see `cameras`), their median taken over what each saw, and
    carried back. Where only this picture looked, and for a shot of fewer than 3 pictures, the plate is the picture itself:
    nothing is known to move there.
    """
    if len(pictures) < 3:
        return [p.copy() for p in pictures]
    height, width = pictures[0].shape[:2]
    if all(np.array_equal(view, np.eye(3)) for view in views):
        plate = np.median(np.stack(pictures), axis=0).astype(np.uint8)
        return [plate] * len(pictures)
    over = [cv2.warpPerspective(p, h, (width, height)) for p, h in zip(pictures, views, strict=True)]
    seen = [cv2.warpPerspective(np.full((height, width), 255, np.uint8), h, (width, height)) > 254 for h in views]
    stack = np.ma.array(np.stack(over), mask=~np.repeat(np.stack(seen)[..., None], 3, axis=3))
    plate = np.ma.median(stack, axis=0).filled(0).astype(np.uint8)
    known = (np.sum(seen, axis=0) >= 3).astype(np.uint8) * 255
    out = []
    for picture, h in zip(pictures, views, strict=True):
        back = np.linalg.inv(h)
        here = cv2.warpPerspective(known, back, (width, height)) > 254
        out.append(np.where(here[..., None], cv2.warpPerspective(plate, back, (width, height)), picture))
    return out


def camera(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The homography, (3, 3) float64, that carries a picture over another of the same scene; the identity where none fits.

    Corners matched by ORB, agreed upon by RANSAC. Deterministic.
    """
    orb = cv2.ORB.create(600, fastThreshold=10)
    (points, marks), (others, other_marks) = (
        orb.detectAndCompute(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), None) for p in (picture, other)
    )
    if marks is None or other_marks is None:
        return np.eye(3)
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(marks, other_marks)
    if len(matches) < 12:
        return np.eye(3)
    a = np.array([points[m.queryIdx].pt for m in matches])
    b = np.array([others[m.trainIdx].pt for m in matches])
    cv2.setRNGSeed(0)
    found, fits = cv2.findHomography(a, b, cv2.RANSAC, 2.0)
    if found is None or fits.sum() < max(12, 0.3 * len(matches)) or not 0.5 < np.linalg.det(found) < 2:
        return np.eye(3)
    return found


def shift(homography: np.ndarray, width: int, height: int) -> float:
    """By how many pixels a homography moves the corners of a picture, on average."""
    corners = np.array([[[0, 0], [width, 0], [width, height], [0, height]]], np.float64)
    return float(np.linalg.norm(cv2.perspectiveTransform(corners, homography) - corners, axis=2).mean())
