"""The servers of the remote tests do what the tests that use them believe."""

import http.client
import urllib.error
import urllib.request

import pytest

from tests.jax_bridge.shards.remote.servers import BROKEN, is_listing

BODY = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    return tmp_path


def get(url, span=None):
    request = urllib.request.Request(url, headers={"Range": f"bytes={span}"} if span else {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status, answer.read()


def length_or_partial(url):
    try:
        return len(get(url)[1])
    except http.client.IncompleteRead as error:
        return len(error.partial)


def test_s3_gives_ranges_and_counts_the_bytes_of_bodies(s3):
    s3.put("data/a", BODY)
    s3.server.reset()
    answer = s3.client.get_object(Bucket=s3.bucket, Key="data/a", Range="bytes=10-19")
    assert answer["Body"].read() == BODY[10:20]
    assert s3.server.bytes_sent == 10
    assert s3.server.requests == [f"GET /{s3.bucket}/data/a"]


def test_s3_refuses_what_it_is_told_to(s3):
    s3.put("data/a", BODY)
    s3.fail(is_listing, 403)
    assert s3.get("data/a") == BODY
    with pytest.raises(s3.client.exceptions.ClientError, match="AccessDenied"):
        s3.objects()


def test_s3_breaks_a_body_off(s3):
    s3.put("data/a", BODY)
    s3.server.reset()
    s3.fail(lambda environ: environ["REQUEST_METHOD"] == "GET", BROKEN)
    import botocore.exceptions

    with pytest.raises(botocore.exceptions.HTTPClientError, match="Connection broken"):
        s3.get("data/a")
    assert 0 < s3.server.bytes_sent < len(BODY)


def test_http_gives_ranges_and_counts_the_bytes_of_bodies(folder, file_server):
    server = file_server(folder)
    assert get(f"{server.url}/a", "10-19") == (206, BODY[10:20])
    assert get(f"{server.url}/a", "10000-99999") == (206, BODY[10000:])
    assert server.bytes_sent == 10 + len(BODY) - 10000
    assert server.requests == ["GET /a bytes=10-19", "GET /a bytes=10000-99999"]


def test_http_without_ranges_gives_everything(folder, file_server):
    assert get(f"{file_server(folder, ranges=False).url}/a", "10-19") == (200, BODY)


def test_http_drops_connections_in_the_middle(folder, file_server):
    server = file_server(folder, drop_rate=0.5)
    lengths = [length_or_partial(f"{server.url}/a") for _ in range(20)]
    assert set(lengths) == {len(BODY), len(BODY) // 2}
    assert lengths.count(len(BODY) // 2) == server.drops


def test_http_lies_about_the_length(folder, file_server):
    server = file_server(folder, length_lie=-6)
    assert get(f"{server.url}/a") == (200, BODY[:-6])
    server.manners.length_lie = 6
    with pytest.raises(http.client.IncompleteRead, match=f"{len(BODY)} bytes read, 6 more"):
        get(f"{server.url}/a")


@pytest.mark.parametrize("status", [403, 404, 503])
def test_http_answers_with_errors(folder, file_server, status):
    server = file_server(folder, status=status)
    with pytest.raises(urllib.error.HTTPError, match=str(status)):
        get(f"{server.url}/a")


def test_http_recovers_after_some_failures(folder, file_server):
    server = file_server(folder, failures=1)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(f"{server.url}/a")
    assert get(f"{server.url}/a") == (200, BODY)
