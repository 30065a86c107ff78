"""The data pipeline of SkyReels-A2 (arXiv 2504.02436, section 2.4), top to bottom."""

from a2data.stage import Stage


def triplets() -> list[Stage]:
    return []
