"""Downloads of listed videos, under limits: which hosts may be asked, how many bytes, how long, how slowly.

A list may come from anyone, and who downloads it may reach hosts that its author may not: a cloud's metadata service, a router,
a server on localhost. So every host is resolved here, its addresses are checked, and the connection goes to a checked address;
the same again after each redirect.
"""

import base64
import ipaddress
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from threading import Event
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from a2data.store.url import WEB, is_web, public_name, scrub

OBJECT_STORES = (
    "s3",
    "s3a",
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
    "hf",
)  # opened with the credentials of the environment
PORTS = {"http": 80, "https": 443}
UNESCAPED = "/%:@!$&'()*+,;=~-._?"
MAX_REDIRECTS = 10
CONNECT_S = 30.0
POLL_S = 1.0  # how often a read that waits looks at the clock


class DownloadError(OSError):
    """A download that did not succeed; its message has no URL with a secret in it."""


class RefusedError(DownloadError):
    """A URL that may not be opened."""


@dataclass(frozen=True)
class Limits:
    """What one source may cost."""

    max_bytes: int = 1 << 37  # 128 GiB
    timeout_s: float = 4 * 3600.0  # from the connection to the last byte
    stall_s: float = 60.0  # the rate is measured over spans of this length
    min_rate: float = 1024.0  # bytes per second


def resolve(host: str, port: int) -> list[str]:
    """The IP addresses of a host, as text; of one that is written as a number, in whatever base, too."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DownloadError(f"the host {host} has no address: {error}") from None
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


def connect(address: str, port: int, timeout_s: float) -> Any:
    """A connection to an IP address, as httpcore's."""
    import httpcore

    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout_s)


class Sink(Protocol):
    """Where a download goes."""

    def write(self, data: bytes, /) -> Any: ...


class Network(NamedTuple):
    """How hosts are found and reached."""

    resolve: Callable[[str, int], list[str]] = resolve
    connect: Callable[[str, int, float], Any] = connect


class Answer(NamedTuple):
    """What the headers of a response say of a file."""

    size: int | None
    modified_ns: int  # 0 where the server does not say


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet; one that wraps an IPv4 address is judged by that.

    >>> [is_public(a) for a in ("93.184.216.34", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::a00:1")]
    [True, False, False, False, False]
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def check_listed(url: str, allow_local: bool = False) -> None:
    """Raise RefusedError for a URL that a list may not name. The addresses of its host are checked when it is opened."""
    if "::" in url and not is_web(url):  # httpcore knows no chains
        raise RefusedError("a list may not chain URLs with '::'")
    scheme = url.partition("://")[0].lower()
    allowed = (*WEB, *OBJECT_STORES, *(("file",) if allow_local else ()))
    if scheme not in allowed:
        hint = ": --allow-local-urls lets it" if scheme == "file" else ""
        raise RefusedError(f"a list may not name {scheme}:// URLs{hint}, only {', '.join(allowed)}")


@dataclass
class Watch:
    """The clock and the counter of one download."""

    limits: Limits
    stop: Event
    began: float = field(default_factory=time.monotonic)
    since: float = field(default_factory=time.monotonic)
    recent: int = 0  # bytes since then
    total: int = 0

    def count(self, size: int) -> None:
        self.recent += size
        self.total += size
        self.check()

    def check(self) -> None:
        """Raise DownloadError where a limit is passed."""
        now = time.monotonic()
        if self.stop.is_set():
            raise DownloadError("interrupted")
        if now - self.began > self.limits.timeout_s:
            raise DownloadError(f"took longer than {self.limits.timeout_s:g} s (--source-timeout): given up")
        if now - self.since > self.limits.stall_s:
            if self.recent < self.limits.min_rate * self.limits.stall_s:
                raise DownloadError(f"came to {self.recent} bytes in {self.limits.stall_s:g} s: given up")
            self.since, self.recent = now, 0

    def check_size(self, size: int) -> None:
        if size > self.limits.max_bytes:
            raise DownloadError(f"has over {self.limits.max_bytes} bytes (--max-source-bytes): given up")

    def left_s(self) -> float:
        return max(0.01, min(CONNECT_S, self.began + self.limits.timeout_s - time.monotonic()))


class _Stream:
    """A connection of httpcore whose reads look at the clock, so that a server that drips is given up."""

    def __init__(self, inner: Any, watch: Watch):
        self.inner, self.watch = inner, watch

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        import httpcore

        while True:
            self.watch.check()
            try:
                data = self.inner.read(max_bytes, timeout=min(POLL_S, self.watch.left_s()))
            except httpcore.ReadTimeout:
                continue
            self.watch.count(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, timeout=self.watch.left_s())

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_Stream":
        return _Stream(self.inner.start_tls(ssl_context, server_hostname, self.watch.left_s()), self.watch)

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class _Backend:
    """What connects for httpcore: to an address that was checked, never to a name that may mean another one by now."""

    def __init__(self, network: Network, watch: Watch, trusted: set[tuple[str, int]], allow_local: bool):
        self.network, self.watch, self.trusted, self.allow_local = network, watch, trusted, allow_local

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> _Stream:
        import httpcore

        addresses = self.network.resolve(host, port)
        if not self.allow_local and (host, port) not in self.trusted:
            inside = [address for address in addresses if not is_public(address)]
            if inside:
                raise RefusedError(
                    f"the host {host} is at {inside[0]}, which is not a public address: --allow-local-urls lets it"
                )
        for number, address in enumerate(addresses, 1):
            try:
                return _Stream(self.network.connect(address, port, self.watch.left_s()), self.watch)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError):
                if number == len(addresses):
                    raise
        raise DownloadError(f"the host {host} has no address")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Downloader:
    """Downloads web addresses. allow_local: hosts that are not on the public internet may be asked, too."""

    limits: Limits = Limits()
    allow_local: bool = False
    network: Network = field(default_factory=Network)
    stop: Event = field(default_factory=Event)

    def get(
        self, url: str, out: Sink, trusted: bool = False, wanted: Callable[[Answer], bool] = lambda answer: True
    ) -> Answer | None:
        """Write what is at a web address to `out`; its headers, or None where those are not `wanted`, and nothing was written.

        trusted: the user gave the URL: its own host may be local. A host that it redirects to must be public all the same.
        Raises DownloadError with a sentence that does not contain the URL.
        """
        try:
            import httpcore
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("videos at web addresses need httpcore: pip install 'a2data[urls]'") from error
        watch = Watch(self.limits, self.stop)
        backend = _Backend(self.network, watch, {_host(url)} if trusted else set(), self.allow_local)
        target = url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with (
                    httpcore.ConnectionPool(network_backend=backend) as pool,  # type: ignore[arg-type]
                    pool.stream("GET", _address(target), headers=_headers(target, url)) as response,
                ):
                    moved = _location(response)
                    if moved is None:
                        return self._save(response, out, watch, wanted)
                target = urljoin(target, moved)
        except DownloadError:
            raise
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            raise DownloadError(scrub(f"{type(error).__name__}: {error}").rstrip(": ")) from None
        raise DownloadError(f"redirected more than {MAX_REDIRECTS} times")

    def _save(self, response: Any, out: Sink, watch: Watch, wanted: Callable[[Answer], bool]) -> Answer | None:
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status != 200:
            reason = response.extensions.get("reason_phrase", b"").decode("latin-1")
            raise DownloadError(f"the server answers {response.status} {reason}".rstrip())
        if headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(
                f"the server sends it in the encoding {headers['content-encoding']}, though not asked to"
            )
        length = headers.get("content-length", "")
        answer = Answer(int(length) if length.isdecimal() else None, _time_ns(headers.get("last-modified", "")))
        if not wanted(answer):
            return None
        watch.check_size(answer.size or 0)
        copy(response.iter_stream(), out, watch)
        return answer


def copy(chunks: Iterable[bytes], out: Sink, watch: Watch) -> None:
    """Write chunks under the limit of bytes."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        watch.check_size(size)
        out.write(chunk)


def _location(response: Any) -> str | None:
    if response.status not in (301, 302, 303, 307, 308):
        return None
    found = [value.decode("latin-1") for name, value in response.headers if name.lower() == b"location"]
    if not found:
        raise DownloadError("is redirected, but not told where to")
    return found[0].replace(" ", "%20")


def _host(url: str) -> tuple[str, int]:
    """The host as it is looked up, and the port. Raises RefusedError for a URL without a host or with control characters."""
    if not is_web(url) or re.search(r"[\x00-\x20\x7f\\]", url):
        raise RefusedError(f"{public_name(url)!r} is not a valid web address")
    parts = urlsplit(url)
    try:
        host = (parts.hostname or "").encode("ascii" if (parts.hostname or "").isascii() else "idna").decode()
        port = parts.port or PORTS[parts.scheme]
    except ValueError:
        raise RefusedError(f"{public_name(url)!r} is not a valid web address") from None
    if not host:
        raise RefusedError(f"{public_name(url)!r} has no host")
    return host, port


def _address(url: str) -> Any:
    """A web address as httpcore's, what is not ASCII in it escaped."""
    import httpcore

    host, port = _host(url)
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe=UNESCAPED)
    target += f"?{quote(parts.query, safe=UNESCAPED)}" if parts.query else ""
    return httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target)


def _headers(url: str, first: str) -> list[tuple[str, str]]:
    """Of a request for `url`, to which `first` led. The password in `first` is for its own host alone."""
    host, port = _host(url)
    scheme = urlsplit(url).scheme
    name = f"[{host}]" if ":" in host else host
    headers = [
        ("Host", name if port == PORTS[scheme] else f"{name}:{port}"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "a2data"),
    ]
    given = urlsplit(first)
    if given.username and (_host(first), given.scheme) == ((host, port), scheme):
        login = f"{unquote(given.username)}:{unquote(given.password or '')}"
        headers.append(("Authorization", "Basic " + base64.b64encode(login.encode()).decode()))
    return headers


def _time_ns(date: str) -> int:
    try:
        return int(parsedate_to_datetime(date).timestamp()) * 10**9 if date else 0
    except ValueError:
        return 0
