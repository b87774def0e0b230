import pytest

from datamodules.latents import LatentDataModule
from lightning_modules.linear_probe import LinearProbe
from lightning_modules.report.findings import permutation_words
from lightning_modules.report.tables import cell_table
from lightning_modules.run_folder import results_of


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (
            "ridge",
            "every probe was solved anew for each permutation of the labels of whole episode",
        ),
        ("auto", "their predictions on held-out episodes were compared"),
    ],
)
def test_a_report_says_how_its_p_values_were_made(planted, trainer, objective, said):
    data = LatentDataModule(str(planted), batch_size=32)
    probe = LinearProbe(objective=objective, permutations=99, controls="none")
    trainer(15).fit(probe, datamodule=data)
    trainer().test(probe, datamodule=data, verbose=False)
    results = results_of(probe, "test", data.clusters)
    (sentence,) = permutation_words(results)
    assert said in sentence
    assert "Permutation test (99 permutations)" in sentence
    assert "1 cell has a corrected p below 0.05" in sentence
    table = cell_table(results)
    assert "p corrected" in table
    assert "0.0100" in table
    penalty = results.cells[0].penalty
    assert (penalty is None) == (objective == "auto")
    assert penalty is None or f"{penalty:g}" in table


def test_a_report_without_a_permutation_test_says_nothing_of_it(planted, trainer):
    data = LatentDataModule(str(planted), batch_size=32, layer=0)
    probe = LinearProbe(permutations=0, controls="none")
    trainer(1).fit(probe, datamodule=data)
    trainer().test(probe, datamodule=data, verbose=False)
    results = results_of(probe, "test", data.clusters)
    assert permutation_words(results) == []
    assert "p corrected" not in cell_table(results)
