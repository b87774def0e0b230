"""What is tried again, and how long that takes."""

import errno
import logging

import pytest

from jax_bridge.shards.remote.retry import Retries, ShortBodyError, may_pass

QUICK = Retries(attempts=4, first_wait=0.0)


class Failing:
    """Fails so many times, then gives 7."""

    def __init__(self, error, times):
        self.error, self.times, self.calls = error, times, 0

    def __call__(self):
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return 7


class StatusError(Exception):
    def __init__(self, status):
        super().__init__(f"answered {status}")
        self.code = status


class BotoError(Exception):
    def __init__(self, status):
        self.response = {"ResponseMetadata": {"HTTPStatusCode": status}}


def raised_from(error, cause):
    try:
        raise error from cause
    except type(error) as caught:
        return caught


PASSING = [
    ConnectionResetError("reset"),
    TimeoutError("slow"),
    ShortBodyError("short"),
    OSError(errno.EREMOTEIO, "InternalError"),
    StatusError(503),
    StatusError(429),
    raised_from(OSError("of s3fs"), BotoError(500)),
]
FINAL = [
    FileNotFoundError("404"),
    PermissionError("403"),
    StatusError(404),
    StatusError(403),
    OSError(errno.ENOSPC, "disk full"),
    ValueError("a mistake"),
    raised_from(OSError("of s3fs"), BotoError(400)),
]


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_may_pass_is_tried_until_it_does(error):
    function = Failing(error, times=3)
    assert QUICK.call(function, what="reading") == 7
    assert function.calls == 4


@pytest.mark.parametrize("error", FINAL, ids=repr)
def test_what_stays_is_tried_once(error):
    function = Failing(error, times=1)
    with pytest.raises(type(error), match=r".*"):
        QUICK.call(function, what="reading")
    assert function.calls == 1


def test_attempts_end(caplog):
    function = Failing(ConnectionResetError("reset by peer"), times=9)
    with caplog.at_level(logging.WARNING), pytest.raises(ConnectionError, match="reset by peer"):
        QUICK.call(function, what="reading s3://b/a")
    assert function.calls == 4
    assert len(caplog.messages) == 3
    assert caplog.messages[-1].startswith("reading s3://b/a failed (reset by peer); attempt 4 of 4")


def test_waits_double_and_are_jittered(monkeypatch):
    waits = []
    monkeypatch.setattr("jax_bridge.shards.remote.retry.time.sleep", waits.append)
    retries = Retries(attempts=9, first_wait=0.5, longest_wait=4.0)
    with pytest.raises(TimeoutError, match="slow"):
        retries.call(Failing(TimeoutError("slow"), times=99), what="reading")
    limits = [0.5, 1, 2, 4, 4, 4, 4, 4]
    assert all(limit / 2 <= wait <= limit for wait, limit in zip(waits, limits, strict=True))
    assert len(set(waits)) == len(waits)


def test_an_error_of_a_library_below_is_known_by_its_name():
    aiohttp = pytest.importorskip("aiohttp")
    botocore = pytest.importorskip("botocore.exceptions")
    assert may_pass(aiohttp.ServerDisconnectedError())
    assert may_pass(aiohttp.ClientPayloadError("cut"))
    assert may_pass(botocore.EndpointConnectionError(endpoint_url="http://x"))
    assert may_pass(botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2))
    assert not may_pass(botocore.NoCredentialsError())


@pytest.mark.parametrize("words", [{"attempts": 0}, {"first_wait": -1.0}, {"longest_wait": -1.0}])
def test_retries_refuse_nonsense(words):
    with pytest.raises(ValueError, match="`attempts` must be positive"):
        Retries(**words)
