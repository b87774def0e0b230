import pytest

from tests.planted import write_planted


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted") / "data")


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLA_LENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
