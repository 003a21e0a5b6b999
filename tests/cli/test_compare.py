"""``compare`` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.example_run import make_run

from napari_bloodcells.cli.app import run
from napari_bloodcells.core.counting.cellstable import write_cells


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("counts")
    cells = make_run({"": 2}).cells
    changed = cells.copy()
    changed.loc[0, "class"] = "basophil"
    return write_cells(cells, folder / "machine.csv"), write_cells(changed, folder / "reviewer.csv")


def test_it_prints_agreement_and_kappa_and_writes_tables_and_plots(
    counts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["compare", str(counts[0]), str(counts[1]), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Cohen's kappa" in said
    assert "within" in said
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 5000


def test_a_count_agrees_with_itself(counts: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(counts[0]), str(counts[0])]) == 0
    assert "kappa 1.000" in capsys.readouterr().out


def test_classes_that_only_one_model_has_stay_in_its_differential(
    counts: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = make_run({"": 2}).cells
    cells = cells.assign(**{"class": "immature granulocyte", "p_immature granulocyte": 1.0, "reviewed": True})
    cells.loc[0, "class"] = "neutrophil"
    wider = write_cells(cells, tmp_path / "wider.csv")
    for a, b in ((counts[0], wider), (wider, counts[0])):
        assert run(["compare", str(a), str(b), "-o", str(tmp_path / f"{a.stem}")]) == 0
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "immature granulocyte" in said.split("Differentials")[1]
        assert "so that its 0 says nothing: immature granulocyte." in said
        assert f"{len(cells)} of {len(cells)} cells were reviewed" in said
    n = len(cells)
    assert f"immature granulocyte {100 * (n - 1) / n:.1f} 0.0" in said


def test_a_missing_file_is_wrong_usage_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(tmp_path / "no.csv"), str(tmp_path / "no.csv")]) != 0
    assert "no.csv: cannot be opened" in capsys.readouterr().err
