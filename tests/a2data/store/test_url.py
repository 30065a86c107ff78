import pytest

from a2data.store.url import has_password, is_web, public_name, reject_password, scrub

SECRETS = [
    "https://me:hunter2@films.example/a.mp4?X-Amz-Signature=SECRET#SECRET",
    "HTTPS://hunter2@films.example/a.mp4?SECRET",
    "https://me:hunter2@[2606:4700::1111]:8443/a.mp4",
    "https://me:hunter2/x@films.example/a.mp4",
    "ftp://me:hunter2@films.example/a.mp4",
    "s3://key:hunter2@bucket/a.mp4?versionId=SECRET",
    "simplecache::https://me:hunter2@films.example/a.mp4?sig=SECRET",
    "zip://a.mp4::https://me:hunter2@films.example/a.zip?sig=SECRET",
]


@pytest.mark.parametrize("url", SECRETS)
def test_neither_password_nor_query_is_part_of_a_name(url):
    for text in (public_name(url), scrub(f"HTTPStatusError: 403 for url '{url}', at {url}: gone")):
        assert "hunter2" not in text
        assert "SECRET" not in text
    assert public_name(public_name(url)) == public_name(url)


@pytest.mark.parametrize(
    "path", ["/a?b=c.mp4", "/x@y:z/a.mp4", "s3://bucket/what?.mp4", "file:///a b#1.mp4", "abfs://box@account/a"]
)
def test_paths_and_urls_without_secrets_are_their_own_names(path):
    assert public_name(path) == path
    assert not has_password(path)


def test_a_message_without_urls_stays_as_it_is():
    assert scrub("a? b://c, 'd'") == "a? b://c, 'd'"


def test_a_work_folder_may_not_hold_a_password():
    assert reject_password("s3://bucket/work?region=eu") == "s3://bucket/work?region=eu"
    with pytest.raises(ValueError, match="s3://key@bucket/work: remove the password") as raised:
        reject_password("s3://key:hunter2@bucket/work")
    assert "hunter2" not in str(raised.value)


def test_web_addresses_are_known_in_any_case():
    assert is_web("HTTP://h/x")
    assert not is_web("httpx")
    assert not is_web("s3://b/x")
