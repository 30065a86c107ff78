"""Download of one file over HTTP that continues where an earlier attempt, or an earlier process, was cut off."""

import os
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from a2data.store.url import scrub

CHUNK = 1 << 20  # bytes
TIMEOUT_S = 30.0  # of connecting, and of waiting for the next bytes
RETRY_WAITS_S = (1.0, 4.0, 10.0)
TRANSIENT = {408, 416, 425, 429, 500, 502, 503, 504}
GITHUB, RAW = "https://github.com/", "https://raw.githubusercontent.com/"


def download(url: str, path: Path, name: str, headers: Mapping[str, str] = {}, immutable: bool = False) -> None:
    """Write the body of `url` to `path`, which appears when it is complete; nothing is requested if it exists.

    Bytes that arrived before a failure stay in PATH.incomplete and are not requested again. immutable: the content of the
    address never changes (a commit, a hash); otherwise a download resumes only if the ETag is unchanged. Raises PermissionError
    for a repository behind a form, OSError with the server's answer after the last attempt.
    """
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("fetching models needs httpx: pip install 'a2data[fetch]'", name="httpx") from error
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    url = mirrored(url)
    for wait_s in (*RETRY_WAITS_S, None):
        try:
            return _download_once(httpx, url, path, name, headers, immutable)
        except httpx.HTTPStatusError as error:
            response = error.response
            if response.headers.get("X-Error-Code") == "GatedRepo":
                raise PermissionError(f"{url} is behind a form") from error
            if wait_s is None or response.status_code not in TRANSIENT:
                status = f"{response.status_code} {response.reason_phrase}".strip()
                raise OSError(f"model {name!r}: {scrub(url)} returned {status}") from error
        except httpx.HTTPError as error:
            if wait_s is None or not isinstance(error, httpx.TransportError):
                raise OSError(
                    f"model {name!r}: download of {scrub(url)} failed ({scrub(str(error))}); retry, it continues from there"
                ) from error
        time.sleep(wait_s)


def mirrored(url: str) -> str:
    """Return the address under A2DATA_GITHUB_MIRROR, which stands for https://github.com, if `url` is one of GitHub's."""
    mirror = os.environ.get("A2DATA_GITHUB_MIRROR", "").rstrip("/")
    if mirror and url.startswith(RAW):
        owner, repository, path = url.removeprefix(RAW).split("/", 2)
        return f"{mirror}/{owner}/{repository}/raw/{path}"
    return f"{mirror}/{url.removeprefix(GITHUB)}" if mirror and url.startswith(GITHUB) else url


def _download_once(httpx: Any, url: str, path: Path, name: str, headers: Mapping[str, str], immutable: bool) -> None:
    """Request what is missing of a file once."""
    partial, etag_path = (path.with_name(path.name + suffix) for suffix in (".incomplete", ".etag"))
    offset = partial.stat().st_size if partial.exists() else 0
    etag = etag_path.read_text() if etag_path.exists() else ""
    # weights do not compress; keeps Content-Length valid
    request_headers = {**headers, "Accept-Encoding": "identity"}
    if offset and (etag or immutable):
        request_headers |= {"Range": f"bytes={offset}-"} | ({} if immutable else {"If-Range": etag})
    options = {"follow_redirects": True, "timeout": TIMEOUT_S, "verify": _certificates()}
    with httpx.stream("GET", url, headers=request_headers, **options) as response:
        if response.status_code == 416:
            partial.unlink()
        response.raise_for_status()
        is_continuation = response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        if response.status_code == 206 and not is_continuation:
            raise OSError(f"model {name!r}: {scrub(url)} answered with another range than the one requested")
        if response.status_code != 206:
            offset = 0
            new_etag = response.headers.get("ETag", "")
            etag_path.write_text("" if new_etag.startswith("W/") else new_etag)
        _save(response, partial, offset, name)
    partial.replace(path)
    etag_path.unlink(missing_ok=True)


@lru_cache
def _certificates() -> Any:
    """Return the certificates of the system, which take longer to load than many a file to download."""
    import httpx

    return httpx.create_ssl_context()


def _save(response: Any, partial: Path, offset: int, name: str) -> None:
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    size = int(response.headers.get("Content-Length", 0)) + offset or None
    with Progress("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn()) as bar:
        task = bar.add_task(name, total=size, completed=offset)
        with partial.open("ab" if offset else "wb") as out:
            # without a chunk size, so that all that arrived before a cut is kept
            for chunk in response.iter_raw():
                out.write(chunk)
                bar.advance(task, len(chunk))
