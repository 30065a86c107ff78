from stages.pack.stage import Pack

__all__ = ["Pack"]
