"""Copies of downloaded sources in the work folder, `sources/<video_id>`, so that one process uses a signed URL once."""

import os
import shutil
from collections.abc import Callable

from pyarrow import fs as arrow_fs

from a2data.media.video import Opener
from a2data.store.folder import Folder
from a2data.store.url import is_url, is_web

FOLDER = "sources"
# (video_id, path) -> opener of its copy; None to open the path itself
SourceFile = Callable[[str, str], Opener | None]


def open_in_place(video_id: str, path: str) -> None:
    """Return None: a SourceFile for sources without copies."""


class SourceFiles:
    """The copies of sources in one work folder."""

    def __init__(self, store: Folder):
        self.store = store

    def has(self, video_id: str) -> bool:
        return self.store.fs.get_file_info(self._path(video_id)).type == arrow_fs.FileType.File

    def opener(self, video_id: str, path: str) -> Opener | None:
        """Return an opener for the copy of a source; None if the source is opened at its path.

        Raises FileNotFoundError for a web address without a copy: only enrolment downloads sources, under limits.
        """
        if not is_url(path):
            return None
        if self.has(video_id):
            return lambda: self.store.reading(FOLDER, video_id)
        if is_web(path):
            raise FileNotFoundError(
                f"{path}: its copy {self._path(video_id)} is missing; `a2data run` with the same input downloads it again"
            )
        return None

    def scratch(self) -> str:
        """Return a local path to download to, inside the work folder if that is local, so that the copy is only renamed."""
        if self.store.local:
            return self.store.scratch(self._path("download"))
        import tempfile

        handle, path = tempfile.mkstemp(prefix="a2data-source-")
        os.close(handle)
        return path

    def store_download(self, scratch: str, video_id: str) -> None:
        """Publish a finished download as the copy of a source."""
        if self.store.local:
            self.store.publish(scratch, self._path(video_id))
            return
        with open(scratch, "rb") as file, self.store.writing(FOLDER, video_id) as out:
            shutil.copyfileobj(file, out, 1 << 20)

    def remove(self, video_id: str) -> None:
        self.store.remove(FOLDER, video_id)

    def _path(self, video_id: str) -> str:
        return self.store.path(FOLDER, video_id)
