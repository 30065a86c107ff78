"""dlib's detector of frontal faces, which the builtin detector and the model `dlib` share."""

import functools
from typing import Any


# two models of a worker use it, and to unpack it takes 0.7 s
@functools.cache
def frontal_detector() -> Any:
    """Return dlib's HOG detector of frontal faces. It keeps the frame it looks at: one thread at a time."""
    import dlib

    return dlib.get_frontal_face_detector()
