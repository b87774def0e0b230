import pytest

from tests.planted import write_planted


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("planted") / "data")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
