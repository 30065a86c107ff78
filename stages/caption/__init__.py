from stages.caption.stage import Caption

__all__ = ["Caption"]
