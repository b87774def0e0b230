import numpy as np
import pytest

from lightning_modules.comparison.exchange import plan_exchange
from lightning_modules.comparison.pooled import Pooled
from tests.comparison_sides import side_of


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pool():
    """Pools the episodes of two sides."""

    def make(a, b, *, paired=False, permutations=40, seed=0):
        first, second = side_of("A", a), side_of("B", b)
        exchange = plan_exchange(first, second, paired=paired, permutations=permutations, seed=seed)
        return Pooled(np.concatenate([first.vectors, second.vectors]), exchange, seed)

    return make
