"""Products of standardised features, whatever they are cut into, against the plain formula."""

import pytest
import torch

from lightning_modules import grid_product
from lightning_modules.grid_product import standardised_product


def grid(dtype: torch.dtype):
    """Features far from zero, statistics and maps of five cells."""
    random = torch.Generator().manual_seed(0)
    features = (50 + 3 * torch.randn(7, 5, 12, generator=random)).to(dtype)
    mean, std = features.float().mean(0), features.float().std(0)
    return features, mean, std, torch.randn(5, 12, 4, generator=random)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("at_once", [1, 2 * 7 * 12, 2**20])
def test_product_and_gradient_do_not_depend_on_how_many_cells_are_held(monkeypatch, dtype, at_once):
    monkeypatch.setattr(grid_product, "AT_ONCE", at_once)
    features, mean, std, maps = grid(dtype)
    ours, plain = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    said = standardised_product(features, mean, std, ours)
    wanted = torch.einsum("bcd,cdk->bck", (features.float() - mean) / std, plain)
    torch.testing.assert_close(said, wanted)
    weight = torch.linspace(-1, 1, said.numel()).view_as(said)
    (said * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad)


def test_stored_features_are_left_as_they_were():
    features, mean, std, maps = grid(torch.float32)
    before = features.clone()
    standardised_product(features, mean, std, maps)
    assert torch.equal(features, before)
