"""One server for tests that leave nothing behind."""

import pytest

from tests.jax_bridge.serving.echo import serve


@pytest.fixture(scope="module")
def address():
    with serve(message_bytes=2**20) as place:
        yield place
