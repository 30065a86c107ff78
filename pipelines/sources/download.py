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
URL_SAFE = "/%:@!$&'()*+,;=~-._?"
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
        results = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DownloadError(f"the host {host} cannot be resolved: {error}") from None
    return list(dict.fromkeys(str(address[0]).partition("%")[0] for *_, address in results))


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


class RemoteFileInfo(NamedTuple):
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
class TransferMonitor:
    """Elapsed time and received bytes of a download, checked against its limits."""

    limits: Limits
    stop: Event
    started: float = field(default_factory=time.monotonic)
    window_started: float = field(default_factory=time.monotonic)
    window_bytes: int = 0  # bytes since window_started
    total: int = 0

    def count(self, size: int) -> None:
        self.window_bytes += size
        self.total += size
        self.check()

    def check(self) -> None:
        """Raise DownloadError if a limit is exceeded."""
        now = time.monotonic()
        if self.stop.is_set():
            raise DownloadError("interrupted")
        if now - self.started > self.limits.timeout_s:
            raise DownloadError(f"stopped after more than {self.limits.timeout_s:g} s (limit: --source-timeout)")
        if now - self.window_started > self.limits.stall_s:
            if self.window_bytes < self.limits.min_rate * self.limits.stall_s:
                raise DownloadError(f"stalled: {self.window_bytes} bytes in {self.limits.stall_s:g} s")
            self.window_started, self.window_bytes = now, 0

    def check_size(self, size: int) -> None:
        if size > self.limits.max_bytes:
            raise DownloadError(f"has over {self.limits.max_bytes} bytes (limit: --max-source-bytes)")

    def remaining_s(self) -> float:
        return max(0.01, min(CONNECT_S, self.started + self.limits.timeout_s - time.monotonic()))


class _MonitoredStream:
    """An httpcore connection whose reads check the limits, so that a slow server is abandoned."""

    def __init__(self, inner: Any, monitor: TransferMonitor):
        self.inner, self.monitor = inner, monitor

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        import httpcore

        while True:
            self.monitor.check()
            try:
                data = self.inner.read(max_bytes, timeout=min(POLL_S, self.monitor.remaining_s()))
            except httpcore.ReadTimeout:
                continue
            self.monitor.count(len(data))
            return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.inner.write(buffer, timeout=self.monitor.remaining_s())

    def close(self) -> None:
        self.inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> "_MonitoredStream":
        return _MonitoredStream(
            self.inner.start_tls(ssl_context, server_hostname, self.monitor.remaining_s()), self.monitor
        )

    def get_extra_info(self, info: str) -> Any:
        return self.inner.get_extra_info(info)


class _CheckedBackend:
    """Network backend for httpcore that connects to checked addresses, never to a name that may resolve differently later."""

    def __init__(self, network: Network, monitor: TransferMonitor, trusted: set[tuple[str, int]], allow_local: bool):
        self.network, self.monitor, self.trusted, self.allow_local = network, monitor, trusted, allow_local

    def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> _MonitoredStream:
        import httpcore

        addresses = self.network.resolve(host, port)
        if not self.allow_local and (host, port) not in self.trusted:
            private = [address for address in addresses if not is_public(address)]
            if private:
                raise RefusedError(
                    f"the host {host} is at {private[0]}, which is not a public address (allow it with --allow-local-urls)"
                )
        for number, address in enumerate(addresses, 1):
            try:
                return _MonitoredStream(self.network.connect(address, port, self.monitor.remaining_s()), self.monitor)
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
        self, url: str, out: Sink, trusted: bool = False, accept: Callable[[RemoteFileInfo], bool] = lambda info: True
    ) -> RemoteFileInfo | None:
        """Download a web address to `out` and return its headers; None, with nothing written, if `accept` is false for them.

        trusted: the URL was given by the user, so its own host may be local; hosts that it redirects to must still be public.
        Raises DownloadError with a message that does not contain the URL.
        """
        try:
            import httpcore
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("videos at web addresses need httpcore: pip install 'a2data[urls]'") from error
        monitor = TransferMonitor(self.limits, self.stop)
        backend = _CheckedBackend(self.network, monitor, {_host(url)} if trusted else set(), self.allow_local)
        target = url
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with (
                    httpcore.ConnectionPool(network_backend=backend) as pool,  # type: ignore[arg-type]
                    pool.stream("GET", _httpcore_url(target), headers=_headers(target, url)) as response,
                ):
                    redirect = _redirect_target(response)
                    if redirect is None:
                        return self._save(response, out, monitor, accept)
                target = urljoin(target, redirect)
        except DownloadError:
            raise
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            raise DownloadError(scrub(f"{type(error).__name__}: {error}").rstrip(": ")) from None
        raise DownloadError(f"redirected more than {MAX_REDIRECTS} times")

    def _save(
        self, response: Any, out: Sink, monitor: TransferMonitor, accept: Callable[[RemoteFileInfo], bool]
    ) -> RemoteFileInfo | None:
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in response.headers}
        if response.status != 200:
            reason = response.extensions.get("reason_phrase", b"").decode("latin-1")
            raise DownloadError(f"the server returned {response.status} {reason}".rstrip())
        if headers.get("content-encoding", "identity") != "identity":
            raise DownloadError(
                f"the server used the content encoding {headers['content-encoding']}, which was not requested"
            )
        length = headers.get("content-length", "")
        info = RemoteFileInfo(int(length) if length.isdecimal() else None, _time_ns(headers.get("last-modified", "")))
        if not accept(info):
            return None
        monitor.check_size(info.size or 0)
        write_chunks(response.iter_stream(), out, monitor)
        return info


def write_chunks(chunks: Iterable[bytes], out: Sink, monitor: TransferMonitor) -> None:
    """Write chunks to `out` within the size limit."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        monitor.check_size(size)
        out.write(chunk)


def _redirect_target(response: Any) -> str | None:
    if response.status not in (301, 302, 303, 307, 308):
        return None
    locations = [value.decode("latin-1") for name, value in response.headers if name.lower() == b"location"]
    if not locations:
        raise DownloadError("the server's redirect lacks a location")
    return locations[0].replace(" ", "%20")


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


def _httpcore_url(url: str) -> Any:
    """Return a web address as an httpcore URL with non-ASCII characters escaped."""
    import httpcore

    host, port = _host(url)
    parts = urlsplit(url)
    target = quote(parts.path or "/", safe=URL_SAFE)
    target += f"?{quote(parts.query, safe=URL_SAFE)}" if parts.query else ""
    return httpcore.URL(scheme=parts.scheme, host=host, port=port, target=target)


def _headers(url: str, original_url: str) -> list[tuple[str, str]]:
    """Return the headers of a request for `url`, reached from `original_url`, whose password is only sent to its own host."""
    host, port = _host(url)
    scheme = urlsplit(url).scheme
    name = f"[{host}]" if ":" in host else host
    headers = [
        ("Host", name if port == PORTS[scheme] else f"{name}:{port}"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),
        ("User-Agent", "a2data"),
    ]
    original = urlsplit(original_url)
    if original.username and (_host(original_url), original.scheme) == ((host, port), scheme):
        login = f"{unquote(original.username)}:{unquote(original.password or '')}"
        headers.append(("Authorization", "Basic " + base64.b64encode(login.encode()).decode()))
    return headers


def _time_ns(date: str) -> int:
    try:
        return int(parsedate_to_datetime(date).timestamp()) * 10**9 if date else 0
    except ValueError:
        return 0
