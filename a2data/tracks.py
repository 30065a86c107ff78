"""Where an element was between the frames in which it was found."""

import numpy as np

from a2data.records import Box, Element


def box_at(element: Element, frame: int, reach: int) -> Box | None:
    """The element's box in any frame of its clip: as seen, or linear between the nearest two sightings.

    Before the first sighting and after the last it is taken to stand still for `reach` frames, then it is gone: None. A gap
    between two sightings is bridged however long it is: the thing was there before and after.
    """
    seen = element.seen_frames
    if not seen or not seen[0] - reach <= frame <= seen[-1] + reach:
        return None
    sides = np.asarray(element.seen_boxes, float).T
    x0, y0, x1, y1 = (float(np.interp(frame, seen, side)) for side in sides)
    return x0, y0, x1, y1
