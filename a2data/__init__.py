"""From raw video to training triplets: `a2data.run` runs the pipeline, `a2data.open` opens what it made.

The other modules of this package are what stages and programs share.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.api import RunError, open, run

    __version__: str

__all__ = ["RunError", "__version__", "open", "run"]


def __getattr__(name: str) -> Any:
    """Import the pipeline when it is first used: `import a2data` stays light, and so does a worker that needs records alone."""
    if name == "__version__":
        from importlib.metadata import version

        return version("a2data")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pipelines import api

    return getattr(api, name)
