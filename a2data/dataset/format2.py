"""Reader of format 2, in which samples were packed until November 2026.

Its JSON has infinities as "inf" and "-inf", numbers otherwise, and masks as base64 of `a2data.media.images.to_rle`. A sample has
only the pictures of the references that it has, under the same names as now.
"""

import base64
from typing import Any

from a2data.media import coco_rle
from a2data.media.images import from_rle

FORMAT = "a2data-triplet/2"


def upgrade(data: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON of a sample of format 2 with masks as in format 3. Infinities are numbers, which `to_facts` accepts.

    Raises ValueError for a value that format 2 does not have; KeyError or TypeError if names or nesting differ.
    """
    for given in data["references"]:
        for rule in given["rules"]:
            rule |= {name: float(rule[name]) for name in ("value", "low", "high")}
        given["origin"]["mask"] = _mask(given["origin"]["mask"])
    for located in (*data["references"], *data["unpaired"]):
        located["target"]["mask"] = _mask(located["target"]["mask"])
    return data


def _mask(text: str) -> dict[str, Any]:
    if text == "":
        return vars(coco_rle.NO_MASK)
    return vars(coco_rle.encode(from_rle(base64.b64decode(text, validate=True))))
