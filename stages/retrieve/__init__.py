from stages.retrieve.stage import Retrieve

__all__ = ["Retrieve"]
