import io
import socket
import threading
import time

import films_server as web
import pytest

from pipelines.sources.download import (
    Downloader,
    DownloadError,
    Limits,
    Network,
    RefusedError,
    check_listed,
    is_public,
    resolve,
)


@pytest.fixture(scope="module")
def server():
    with web.serving() as server:
        yield server


@pytest.fixture
def get(server):
    """Download from the public internet, all of which is the server; returns the bytes."""
    server.answers, server.asked = {"/a.mp4": b"film"}, []

    def got(url, limits=Limits(), hosts=web.HOSTS, **how):  # noqa: B008
        out = io.BytesIO()
        Downloader(limits, how.pop("allow_local", False), server.network(hosts)).get(url, out, **how)
        return out.getvalue()

    return got


def test_a_public_host_is_asked(get):
    assert get("http://films.example/a.mp4") == b"film"


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
        ),
        *("255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::ffff:169.254.169.254"),
        *("64:ff9b::7f00:1", "2002:7f00:1::", "fd00:ec2::254"),
    ],
)
def test_an_address_that_is_not_public_is_refused(get, server, address):
    with pytest.raises(RefusedError, match=r"not a public address \(allow it with --allow-local-urls"):
        get("http://evil.example/a.mp4", hosts={"evil.example": address})
    assert server.connected == server.asked == []


def test_public_addresses_are_public():
    assert all(map(is_public, ["93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "0"]
)
def test_localhost_is_recognised_in_every_notation(host):
    def unreachable(*_):
        pytest.fail("connected")

    with pytest.raises(RefusedError, match="not a public address"):
        Downloader(network=Network(resolve, unreachable)).get(f"http://{host}/a.mp4", io.BytesIO())


def test_one_private_address_among_public_ones_is_enough_to_refuse(server):
    network = server.network(web.HOSTS)._replace(resolve=lambda host, port: [web.PUBLIC, "10.0.0.1"])
    with pytest.raises(RefusedError):
        Downloader(network=network).get("http://films.example/a.mp4", io.BytesIO())


def test_a_name_that_changes_its_address_after_the_check_is_not_followed(get, server):
    answers = iter([web.PUBLIC, "127.0.0.1", "127.0.0.1"])
    network = server.network(web.HOSTS)._replace(resolve=lambda host, port: [next(answers)])
    Downloader(network=network).get("http://films.example/a.mp4", io.BytesIO())
    assert server.connected == [web.PUBLIC]


@pytest.mark.parametrize(
    "to",
    [
        "http://inside.example/x",
        "http://127.0.0.1:9/x",
        "//inside.example/x",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_a_redirect_to_a_local_host_is_refused(get, server, to):
    server.answers["/moved"] = web.redirect(to)
    hosts = web.HOSTS | {"127.0.0.1": "127.0.0.1", "169.254.169.254": "169.254.169.254"}
    with pytest.raises(RefusedError, match="not a public address"):
        get("http://films.example/moved", hosts=hosts)
    with pytest.raises(RefusedError, match="not a public address"):
        get("http://films.example/moved", hosts=hosts, trusted=True)
    assert set(server.paths()) == {"/moved"}


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://films.example/x", "gopher://films.example/x"])
def test_a_redirect_to_another_scheme_is_refused(get, server, to):
    server.answers["/moved"] = web.redirect(to)
    with pytest.raises(RefusedError, match="not a valid web address"):
        get("http://films.example/moved", allow_local=True)


def test_redirects_between_public_hosts_are_followed_but_not_for_ever(get, server):
    server.answers |= {"/old": web.redirect("http://other.example/a.mp4"), "/loop": web.redirect("/loop")}
    assert get("http://films.example/old") == b"film"
    with pytest.raises(DownloadError, match="redirected more than 10 times"):
        get("http://films.example/loop")


def test_a_password_is_sent_to_its_own_host_alone(get, server):
    server.answers["/old"] = web.redirect("http://other.example/a.mp4")
    get("http://me:hunter2@films.example/old")
    assert [headers.get("Authorization") for _, headers in server.asked] == ["Basic bWU6aHVudGVyMg==", None]


def test_the_user_s_own_url_may_be_local(server, get):
    out = io.BytesIO()
    Downloader().get(f"{server.url}/a.mp4", out, trusted=True)
    assert out.getvalue() == b"film"
    with pytest.raises(RefusedError):
        Downloader().get(f"{server.url}/a.mp4", io.BytesIO())
    Downloader(allow_local=True).get(f"{server.url}/a.mp4", io.BytesIO())


@pytest.mark.parametrize("slow", [web.drip(), web.drip_headers])
def test_a_server_that_drips_is_given_up(get, server, slow):
    server.answers["/slow"] = slow
    with pytest.raises(DownloadError, match=r"stalled: \d+ bytes in 0.3 s"):
        get("http://films.example/slow", Limits(stall_s=0.3))


def test_a_download_that_takes_too_long_is_given_up(get, server):
    server.answers["/slow"] = web.drip()
    with pytest.raises(DownloadError, match=r"more than 0.3 s \(limit: --source-timeout\)"):
        get("http://films.example/slow", Limits(timeout_s=0.3))


def test_a_server_that_says_nothing_is_given_up(get, server):
    server.answers["/silent"] = lambda handler: time.sleep(3)
    began = time.monotonic()
    with pytest.raises(DownloadError):
        get("http://films.example/silent", Limits(timeout_s=0.3))
    assert time.monotonic() - began < 2


def test_a_download_without_end_stops_at_the_limit_of_bytes(get, server):
    server.answers["/endless"] = web.endless
    with pytest.raises(DownloadError, match=r"over 1000000 bytes \(limit: --max-source-bytes\)"):
        get("http://films.example/endless", Limits(max_bytes=1_000_000))


def test_a_file_that_says_it_is_too_large_is_not_read(get, server):
    server.answers["/large"] = b"x" * 2000
    out = io.BytesIO()
    with pytest.raises(DownloadError, match="over 1000 bytes"):
        Downloader(Limits(max_bytes=1000), network=server.network(web.HOSTS)).get("http://films.example/large", out)
    assert out.getvalue() == b""


@pytest.mark.parametrize("path", ["/gone.mp4", "/cut"])
def test_errors_say_what_happened_and_not_the_url(get, server, path):
    server.answers["/cut"] = web.cut_off
    with pytest.raises(DownloadError, match=r"404 Not Found|RemoteProtocolError") as raised:
        get(f"http://me:hunter2@films.example{path}?X-Amz-Signature=SECRET")
    assert "hunter2" not in str(raised.value)
    assert "SECRET" not in str(raised.value)


def test_a_closed_port_is_an_error_message():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(DownloadError, match="ConnectError"):
            Downloader(allow_local=True).get(f"http://127.0.0.1:{free.getsockname()[1]}/x", io.BytesIO())


@pytest.mark.parametrize(
    "url", ["http://", "http:///x", "http://a b/x", "http://h/x\r\nHost: y", "http://h:port/x", "http://h\\@i/x"]
)
def test_what_is_not_a_web_address_is_refused(get, url):
    with pytest.raises(RefusedError):
        get(url)


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "FILE:///x", "ftp://h/x", "memory://x", "github://o:r@/x", "local://x", "data://x"),
        *("simplecache::https://h/x", "zip://a.mp4::https://h/x.zip", "filecache::file:///x", "s3://b/x::y"),
    ],
)
def test_a_list_may_not_name_other_schemes_or_chains(url):
    with pytest.raises(RefusedError, match="list"):
        check_listed(url)


def test_a_list_may_name_web_addresses_and_object_stores_and_files_where_allowed():
    for url in (
        "https://h/x.mp4?a=b::c",
        "http://[2606:4700::1111]/x",
        "http://h/x.mp4",
        "s3://bucket/x.mp4",
        "gs://b/x",
        "hf://datasets/a/b/x.mp4",
    ):
        check_listed(url)
    check_listed("file:///films/x.mp4", allow_local=True)


def test_downloads_under_way_end_when_the_run_is_interrupted(server, get):
    server.answers["/slow"] = web.drip()
    downloader = Downloader(network=server.network(web.HOSTS))
    threading.Timer(0.2, downloader.stop.set).start()
    with pytest.raises(DownloadError, match="interrupted"):
        downloader.get("http://films.example/slow", io.BytesIO())
