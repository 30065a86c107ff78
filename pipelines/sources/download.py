"""Downloads of listed videos with limits on hosts, size, duration and speed.

A list may come from an untrusted author, while this machine may reach hosts that the author cannot: a cloud's metadata service, a
router, a server on localhost. Every host is therefore resolved here, its addresses are checked, and the connection goes to a
checked address; the same applies to each redirect.
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

# opened with the credentials of the environment
OBJECT_STORES = (
    "s3",
    "s3a",
    "gs",
    "gcs",
    "az",
    "abfs",
    "abfss",
    "hf",
)
PORTS = {"http": 80, "https": 443}
UNESCAPED = "/%:@!$&'()*+,;=~-._?"
MAX_REDIRECTS = 10
CONNECT_S = 30.0
POLL_S = 1.0  # interval at which a waiting read checks the limits


class DownloadError(OSError):
    """A failed download. Its message does not contain URLs with secrets."""


class RefusedError(DownloadError):
    """A URL that must not be opened."""


@dataclass(frozen=True)
class Limits:
    """Limits of a download."""

    max_bytes: int = 1 << 37  # 128 GiB
    timeout_s: float = 4 * 3600.0  # from the connection to the last byte
    stall_s: float = 60.0  # span over which the rate is measured
    min_rate: float = 1024.0  # bytes per second


def resolve(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host as text. Also resolves hosts written as numbers in any base."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DownloadError(f"the host {host} cannot be resolved: {error}") from None
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in found))


def connect(address: str, port: int, timeout_s: float) -> Any:
    """Open an httpcore connection to an IP address."""
    import httpcore

    return httpcore.SyncBackend().connect_tcp(address, port, timeout=timeout_s)


class Sink(Protocol):
    """Destination of a download."""

    def write(self, data: bytes, /) -> Any: ...


class Network(NamedTuple):
    """Functions that resolve hosts and connect to them."""

    resolve: Callable[[str, int], list[str]] = resolve
    connect: Callable[[str, int, float], Any] = connect


class Answer(NamedTuple):
    """Size and time of a file according to the headers of a response."""

    size: int | None
    modified_ns: int  # 0 if the server does not state it


def is_public(address: str) -> bool:
    """Return whether an IP address belongs to the public internet. IPv6 addresses that wrap an IPv4 address are judged by that.

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
    """Raise RefusedError for a URL that is not allowed in a list. The addresses of its host are checked when it is opened."""
    if "::" in url and not is_web(url):  # httpcore does not support chains
        raise RefusedError("lists must not chain URLs with '::'")
    scheme = url.partition("://")[0].lower()
    allowed = (*WEB, *OBJECT_STORES, *(("file",) if allow_local else ()))
    if scheme not in allowed:
        hint = " (allow them with --allow-local-urls)" if scheme == "file" else ""
        raise RefusedError(f"{scheme}:// URLs are not allowed in lists{hint}, only {', '.join(allowed)}")


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
        """Raise DownloadError if a limit is exceeded."""
        now = time.monotonic()
        if self.stop.is_set():
            raise DownloadError("interrupted")
        if now - self.began > self.limits.timeout_s:
            raise DownloadError(f"stopped after more than {self.limits.timeout_s:g} s (limit: --source-timeout)")
        if now - self.since > self.limits.stall_s:
            if self.recent < self.limits.min_rate * self.limits.stall_s:
                raise DownloadError(f"stalled: {self.recent} bytes in {self.limits.stall_s:g} s")
            self.since, self.recent = now, 0

    def check_size(self, size: int) -> None:
        if size > self.limits.max_bytes:
            raise DownloadError(f"has over {self.limits.max_bytes} bytes (limit: --max-source-bytes)")

    def left_s(self) -> float:
        return max(0.01, min(CONNECT_S, self.began + self.limits.timeout_s - time.monotonic()))


class _Stream:
    """An httpcore connection whose reads check the limits, so that a slow server is abandoned."""

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
    """Network backend for httpcore that connects to checked addresses, never to a name that may resolve differently later."""

    def __init__(self, network: Network, watch: Watch, trusted: set[tuple[str, int]], allow_local: bool):
        self.network, self.watch, self.trusted, self.allow_local = network, watch, trusted, allow_local

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> _Stream:
        import httpcore

        addresses = self.network.resolve(host, port)
        if not self.allow_local and (host, port) not in self.trusted:
            inside = [address for address in addresses if not is_public(address)]
            if inside:
                raise RefusedError(
                    f"the host {host} is at {inside[0]}, which is not a public address (allow it with --allow-local-urls)"
                )
        for number, address in enumerate(addresses, 1):
            try:
                return _Stream(self.network.connect(address, port, self.watch.left_s()), self.watch)
            except (httpcore.ConnectError, httpcore.ConnectTimeout, OSError):
                if number == len(addresses):
                    raise
        raise DownloadError(f"the host {host} does not have an address")

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Downloader:
    """Downloader for web addresses. allow_local: also allow hosts outside the public internet."""

    limits: Limits = Limits()
    allow_local: bool = False
    network: Network = field(default_factory=Network)
    stop: Event = field(default_factory=Event)

    def get(
        self, url: str, out: Sink, trusted: bool = False, wanted: Callable[[Answer], bool] = lambda answer: True
    ) -> Answer | None:
        """Download a web address to `out` and return its headers; None, with nothing written, if they are not `wanted`.

        trusted: the URL was given by the user, so its own host may be local; hosts that it redirects to must still be public.
        Raises DownloadError with a message that does not contain the URL.
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
            raise DownloadError(f"the server returned {response.status} {reason}".rstrip())
        if headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(
                f"the server used the content encoding {headers['content-encoding']}, which was not requested"
            )
        length = headers.get("content-length", "")
        answer = Answer(int(length) if length.isdecimal() else None, _time_ns(headers.get("last-modified", "")))
        if not wanted(answer):
            return None
        watch.check_size(answer.size or 0)
        copy(response.iter_stream(), out, watch)
        return answer


def copy(chunks: Iterable[bytes], out: Sink, watch: Watch) -> None:
    """Write chunks to `out` within the size limit."""
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
        raise DownloadError("the server's redirect lacks a location")
    return found[0].replace(" ", "%20")


def _host(url: str) -> tuple[str, int]:
    """Return the host, as resolved, and the port. Raises RefusedError for a URL without a host or with control characters."""
    if not is_web(url) or re.search(r"[\x00-\x20\x7f\\]", url):
        raise RefusedError(f"{public_name(url)!r} is not a valid web address")
    parts = urlsplit(url)
    try:
        host = (parts.hostname or "").encode("ascii" if (parts.hostname or "").isascii() else "idna").decode()
        port = parts.port or PORTS[parts.scheme]
    except ValueError:
        raise RefusedError(f"{public_name(url)!r} is not a valid web address") from None
    if not host:
        raise RefusedError(f"{public_name(url)!r} does not contain a host")
    return host, port


def _address(url: str) -> Any:
    """Return a web address as an httpcore URL with non-ASCII characters escaped."""
    import httpcore

    host, port = _host(url)
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe=UNESCAPED)
    target += f"?{quote(parts.query, safe=UNESCAPED)}" if parts.query else ""
    return httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target)


def _headers(url: str, first: str) -> list[tuple[str, str]]:
    """Return the headers of a request for `url`, reached from `first`. The password in `first` is only sent to its own host."""
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
