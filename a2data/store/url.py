"""Public names of URLs, without passwords and signatures, for whatever is recorded or printed."""

import re
from urllib.parse import urlsplit, urlunsplit

WEB = ("http", "https")
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"<>]+")
QUERY = re.compile(r"\?[\w.~\-]+=.*$", re.DOTALL)  # "?key=value…"; object names may hold a bare question mark


def is_url(path: str) -> bool:
    return "://" in path


def is_web(path: str) -> bool:
    """Return whether a path is an http or https URL."""
    return path.partition("://")[0].lower() in WEB and is_url(path)


def public_name(path: str) -> str:
    """Return a path or URL without password and query, and for web addresses without user and fragment.

    >>> public_name("https://me:hunter2@films.example:8443/a.mp4?X-Amz-Signature=1f2e#t=3")
    'https://films.example:8443/a.mp4'
    >>> public_name("sftp://me:hunter2@host/what?.mp4")
    'sftp://me@host/what?.mp4'
    >>> public_name("/films/a?b=c.mp4")
    '/films/a?b=c.mp4'
    """
    if "::" in path and is_url(path) and not is_web(path):
        return "::".join(public_name(link) for link in path.split("::"))
    scheme, found, _ = path.partition("://")
    if not found:
        return path
    try:
        parts = urlsplit(path)
        # raises if the host is invalid, as after a password that contains a slash
        parts.port  # noqa: B018
    except ValueError:
        return f"{scheme}://(not a valid URL)"
    user, at, host = parts.netloc.rpartition("@")
    if is_web(path):
        return urlunsplit((parts.scheme, host, parts.path, "", ""))
    authority = f"{user.partition(':')[0]}{at}{host}"
    rest = path.partition("://")[2][len(parts.netloc) :]
    return f"{scheme}://{authority}{QUERY.sub('', rest)}"


def has_password(path: str) -> bool:
    """Return whether a URL contains "user:password@".

    >>> has_password("s3://key:secret@bucket/work"), has_password("abfs://container@account/work")
    (True, False)
    """
    authority = re.split(r"[/?#]", path.partition("://")[2])[0]
    return ":" in authority.rpartition("@")[0]


def reject_password(path: str) -> str:
    """Return the path unchanged. Raises ValueError for a URL with a password, which would end up in run.json and in shards."""
    if has_password(path):
        raise ValueError(
            f"{public_name(path)}: remove the password from the URL, since the URL is recorded. Credentials of object stores "
            "belong in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
        )
    return path


def scrub(text: str) -> str:
    """Return a message with every URL in it reduced to its public name.

    >>> scrub("403, url='https://h/x.mp4?sig=abc', try later")
    "403, url='https://h/x.mp4', try later"
    """
    return URL.sub(lambda found: public_name(found.group()), text)
