from stages.segment.stage import Segment

__all__ = ["Segment"]
