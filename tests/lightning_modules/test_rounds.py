import re

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cli.main import main
from datamodules.cell import Cell
from datamodules.latents import LatentDataModule
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.probe_group import GroupSpec
from lightning_modules.rounds import count_rounds, deal_rounds

TOLERANCE = 1e-5
"""As in test_linear_probe.py: other numbers of cells, other order of the sums."""
NUMBERS = 4 * (12 + 1) * 4
"""Bytes of one copy of a planted cell's numbers: 12 wide, 4 classes, float32."""


def budget(cells: int, at_once: int) -> int:
    """What lets so many of the planted cells train together."""
    return NUMBERS * (2 * cells + 3 * at_once)


def fitted(trainer, planted, epochs: int = 4, **options) -> LinearProbe:
    data = LatentDataModule(str(planted), batch_size=16)
    probe = LinearProbe(controls=["shuffled"], **options)
    trainer(epochs).fit(probe, datamodule=data)
    return probe


def best(probe: LinearProbe, kind: str, name: str) -> torch.Tensor:
    """A buffer of all cells of a kind, however they were dealt."""
    found = [getattr(g, name) for g in probe.probe_groups if g.spec.kind == kind]
    return torch.cat(found)


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_a_cell_ends_where_it_would_have_ended_in_one_round(planted, trainer, at_once):
    whole = fitted(trainer, planted)
    parts = fitted(trainer, planted, memory_budget=budget(6, at_once))
    assert parts.spec is not None
    assert count_rounds(parts.spec.groups) == -(-6 // at_once)
    for kind in ("main", "shuffled"):
        for name in ("best_weight", "best_bias", "best_loss", "best_epoch"):
            torch.testing.assert_close(
                best(parts, kind, name), best(whole, kind, name), rtol=TOLERANCE, atol=TOLERANCE
            )


def test_only_cells_that_train_have_gradients_and_moments(planted, trainer):
    class Watch(LinearProbe):
        def on_train_batch_end(self, outputs, batch, batch_idx) -> None:
            (optimizer,) = self.trainer.optimizers
            numbers.add(sum(s["exp_avg"].numel() for s in optimizer.state.values()))
            graded.add(sum(p.grad.numel() for p in self.parameters() if p.grad is not None))

    numbers, graded = set(), set()
    probe = Watch(controls=["shuffled"], memory_budget=budget(6, 2))
    trainer(2).fit(probe, datamodule=LatentDataModule(str(planted), batch_size=16))
    assert numbers == graded == {2 * NUMBERS // 4}


def test_a_round_ends_early_where_its_cells_have_stopped(planted, trainer):
    probe = LinearProbe(
        controls=["shuffled"], patience=2, min_delta=10.0, memory_budget=budget(6, 3)
    )
    t = trainer(50)
    t.fit(probe, datamodule=LatentDataModule(str(planted), batch_size=16))
    assert t.current_epoch == 6  # as in one round: one good epoch and two that are not, twice


def test_a_fit_that_is_resumed_in_a_later_round_ends_with_the_same_bits(planted, trainer, tmp_path):
    whole = fitted(trainer, planted, memory_budget=budget(6, 2))

    class Keep(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    options = {"controls": ["shuffled"], "memory_budget": budget(6, 2)}
    saving = trainer(4, callbacks=[Keep()])
    saving.fit(LinearProbe(**options), datamodule=LatentDataModule(str(planted), batch_size=16))
    for epoch in (3, 5):  # the last of the first round, and one inside the second
        resumed = LinearProbe(**options)
        trainer(4).fit(
            resumed, datamodule=LatentDataModule(str(planted), batch_size=16),
            ckpt_path=tmp_path / f"{epoch}.ckpt",
        )  # fmt: skip
        for kind in ("main", "shuffled"):
            assert torch.equal(best(whole, kind, "best_weight"), best(resumed, kind, "best_weight"))


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 40)), min_size=1, max_size=5),
       st.integers(1, 9))  # fmt: skip
def test_rounds_hold_every_cell_once_in_order_and_within_the_budget(groups, at_once):
    whole = [
        GroupSpec(
            kind="main", source=place, width=width,
            cells=tuple(
                Cell(expert="e", site="s", region=str(place), pool="p", layer=layer)
                for layer in range(cells)
            ),
        )
        for place, (cells, width) in enumerate(groups)
    ]  # fmt: skip
    size = 3
    numbers = {g.source: 4 * (g.width + 1) * size for g in whole}
    resting = 2 * sum(numbers[g.source] * len(g.cells) for g in whole)
    allowed = resting + 3 * at_once * max(numbers.values())
    dealt = deal_rounds(whole, size=size, memory_budget=allowed)
    assert [c for g in dealt for c in g.cells] == [c for g in whole for c in g.cells]
    for group in dealt:
        assert group.cells[0].layer == group.first
    for number in range(count_rounds(dealt)):
        used = sum(3 * numbers[g.source] * len(g.cells) for g in dealt if g.round == number)
        assert 0 < used <= allowed - resting


def test_a_budget_that_holds_no_cell_says_what_is_needed(planted):
    data = LatentDataModule(str(planted))
    data.setup()
    needed = budget(3, 1)
    probe = LinearProbe(controls="none", memory_budget=needed - 1)
    with pytest.raises(ValueError, match=f"must be {needed} bytes at least.*got {needed - 1}"):
        probe.spec_of(data)


def test_rounds_are_said_before_they_start(planted, tmp_path, capsys):
    args = [
        "fit", "-c", "probe", "--data.path", str(planted), "--out", str(tmp_path / "run"),
        "--model.controls", "none", "--model.memory_budget", str(budget(3, 1)),
        "--trainer.max_epochs", "1", "--trainer.enable_progress_bar", "false",
    ]  # fmt: skip
    assert main(args) == 0
    assert re.search(r"3 cells .* 3 rounds of training, of 1, 1, 1 cells", capsys.readouterr().out)
