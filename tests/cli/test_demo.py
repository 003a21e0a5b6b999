"""The demo: counted beside true, and that the comparison itself is right."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from napari_bloodcells.cli.demo import demo, demo_settings, hold_against, read_truth
from napari_bloodcells.synthetic import CELL_TYPES, draw_smear

app = typer.Typer()
app.command()(demo)


def table(*rows: tuple[str, float, float, float, float, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["image", "x_min", "y_min", "x_max", "y_max", "class"])


TRUTH = table(("a.png", 0, 0, 100, 100, "neutrophil"), ("a.png", 200, 0, 300, 100, "basophil"))


@pytest.mark.parametrize(
    ("cells", "pairs", "missed", "false"),
    [
        (table(("a.png", 10, 10, 90, 90, "neutrophil"), ("a.png", 210, 5, 290, 95, "basophil")), 2, 0, 0),
        (table(("a.png", 10, 10, 90, 90, "neutrophil")), 1, 1, 0),
        (table(("b.png", 10, 10, 90, 90, "neutrophil")), 0, 2, 1),
        (table(("a.png", 400, 10, 490, 90, "neutrophil")), 0, 2, 1),
        (table(("a.png", 5, 5, 95, 95, "neutrophil"), ("a.png", 8, 8, 98, 98, "neutrophil")), 1, 1, 1),
        (table(), 0, 2, 0),
    ],
    ids=["all found", "one missed", "in another image", "beside the cell", "boxed twice", "nothing found"],
)
def test_counted_cells_are_paired_with_true_ones(cells: pd.DataFrame, pairs: int, missed: int, false: int) -> None:
    got = hold_against(TRUTH, cells)
    assert (len(got.pairs), len(got.missed), got.false) == (pairs, missed, false)


def test_a_swapped_class_is_found_but_not_right() -> None:
    cells = table(("x/a.png", 0, 0, 100, 100, "monocyte"), ("x/a.png", 200, 0, 300, 100, "basophil"))
    got = hold_against(TRUTH, cells)
    assert got.pairs == (("neutrophil", "monocyte"), ("basophil", "basophil"))
    assert got.right == 1


def test_the_demo_draws_every_class() -> None:
    settings = demo_settings()
    names = {name for seed in range(10_000, 10_016) for name in draw_smear(seed, settings).boxes.labels}
    assert names == set(CELL_TYPES[:5])


def test_the_demo_counts_what_it_drew_and_leaves_only_what_was_asked_for(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--fields", "6", "-o", str(tmp_path / "kept"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    for word in ("neutrophil", "basophil", "true", "counted", "24 cells found", "Next:"):
        assert word in result.output
    assert "platelets" not in result.output, "they are no cells of the table of what is true"
    truth = read_truth(tmp_path / "kept" / "smears" / "truth.csv")
    cells = pd.read_csv(tmp_path / "kept" / "differential" / "cells.csv")
    got = hold_against(truth, cells)
    assert len(got.pairs) >= 22
    assert got.right >= 0.7 * len(got.pairs)
    assert got.false <= 2


def test_the_demo_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "smears").mkdir()
    (tmp_path / "smears" / "truth.csv").write_text("mine")
    result = CliRunner().invoke(app, ["--fields", "1", "-o", str(tmp_path)])
    assert result.exit_code != 0
    assert (tmp_path / "smears" / "truth.csv").read_text() == "mine"
    assert [path.name for path in tmp_path.rglob("*.*")] == ["truth.csv"]
