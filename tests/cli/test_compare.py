"""``compare`` on the command line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from tests.example_run import make_run

from napari_bloodcells.cli.app import run
from napari_bloodcells.core.counting.cellstable import write_cells
from napari_bloodcells.core.counting.output import table_bytes


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


def _seen(labels: list[str], image: str = "field.png") -> pd.DataFrame:
    """Cells side by side on one image."""
    x = [20.0 * k for k in range(len(labels))]
    boxes = {"x_min": x, "y_min": 0.0, "x_max": [v + 15 for v in x], "y_max": 15.0}
    return pd.DataFrame({"image": image, "cell": range(1, len(x) + 1), **boxes, "class": labels, "confidence": 1.0})


def test_who_says_a_class_less_often_of_the_same_cells_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = ["neutrophil"] * 120 + ["lymphocyte"] * 66
    first = write_cells(_seen([*same, *["monocyte"] * 14]), tmp_path / "a.csv")
    second = write_cells(_seen([*same, *["lymphocyte"] * 9, *["monocyte"] * 5]), tmp_path / "b.csv")
    assert run(["compare", str(first), str(second), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Of the 200 cells in both, B says monocyte less often: 9 by A alone, 0 by B alone (McNemar, p 0.008" in said
    assert "B says lymphocyte more often: 0 by A alone, 9 by B alone" in said
    assert "says neutrophil" not in said
    table = pd.read_csv(tmp_path / "out" / "agreement.csv").set_index("class")
    assert table.loc["monocyte", ["mcnemar_p", "mcnemar_p_holm"]].tolist() == [0.0039, 0.0078]
    assert run(["compare", str(first), str(first)]) == 0
    assert "Of the 200 cells in both, neither says any class more often" in capsys.readouterr().out


def _count(folder: Path, cells: pd.DataFrame, images: pd.DataFrame, format: str = "csv") -> Path:
    folder.mkdir()
    for name, table in (("cells", cells), ("images", images)):
        (folder / f"{name}.{format}").write_bytes(table_bytes(table, format, cells=name == "cells"))
    return folder


@pytest.mark.parametrize("format", ["csv", "json"])
def test_cells_that_one_count_missed_on_a_whole_image_are_not_hidden(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_run({"": 3})
    names = list(data.images["image"])
    a = _count(tmp_path / "a", data.cells, data.images, format)
    b = _count(tmp_path / "b", data.cells[data.cells["image"] == names[0]], data.images, format)
    assert run(["compare", str(a), str(b), "-o", str(tmp_path / "out")]) == 0
    missed = int((data.cells["image"] != names[0]).sum())
    said = capsys.readouterr().out
    assert f"Without a partner: {missed} of A, 0 of B." in said
    assert "Left out" not in said
    whole = pd.read_csv(tmp_path / "out" / "differences.csv").set_index("class")
    white = int(data.cells["class"].isin(data.scheme.names).sum())
    assert set(whole["total_a"]) == {white}, "the percents of A are those of its own differential.csv"


def test_an_image_that_only_one_count_has_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_run({"": 3})
    last = data.images["image"].iloc[-1]
    other = data.cells[data.cells["image"] != last]
    unread = data.images.assign(status=["ok", "ok", f"{last}: is empty (0 bytes)."])
    a = _count(tmp_path / "a", data.cells, data.images)
    b = _count(tmp_path / "b", other, unread)
    assert run(["compare", str(a), str(b)]) == 0
    said = capsys.readouterr().out
    n = len(data.cells) - len(other)
    assert f"Left out: 1 image with {n} cell{'' if n == 1 else 's'} of A that B did not count: {last}" in said
    assert "Without a partner" not in said
    assert run(["compare", str(a), str(write_cells(other, tmp_path / "corrected.csv"))]) == 0
    assert "that B has no cell of (no images.csv beside it)" in capsys.readouterr().out


def test_a_count_that_found_nothing_has_no_percents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_run({"": 2})
    a = _count(tmp_path / "a", data.cells, data.images)
    b = _count(tmp_path / "b", data.cells.head(0), data.images)
    assert run(["compare", str(a), str(b), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"Without a partner: {len(data.cells)} of A, 0 of B." in said
    assert "nan" not in said


def test_a_sample_without_a_verdict_is_not_told_as_one_that_lies_outside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_run({"s": 1, "t": 1})
    a = _count(tmp_path / "a", data.cells, data.images)
    b = _count(tmp_path / "b", data.cells[data.cells["image"] == "s/field_01.png"], data.images)
    assert run(["compare", str(a), str(b)]) == 0
    assert "\nt: " not in capsys.readouterr().out


def test_a_count_in_json_that_found_nothing_is_one_without_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_run({"": 2})
    a = _count(tmp_path / "a", data.cells, data.images, "json")
    b = _count(tmp_path / "b", data.cells.head(0), data.images, "json")
    assert pd.read_json(b / "cells.json").columns.empty
    assert run(["compare", str(a), str(b)]) == 0
    assert f"Without a partner: {len(data.cells)} of A, 0 of B." in capsys.readouterr().out


NAMES = "has no column cell, x_min, y_min, x_max, y_max, class"
TORN = _seen(["neutrophil"]).assign(x_max="wide")


@pytest.mark.parametrize(
    ("name", "table", "said"),
    [
        ("images.json", make_run({"": 1}).images, NAMES),
        ("images.parquet", make_run({"": 1}).images, NAMES),
        ("anna.json", pd.DataFrame(columns=[]), f"has no column image, {NAMES.removeprefix('has no column ')}"),
        ("cells.json", TORN, "has a box that is no number"),
    ],
    ids=["images.json", "images.parquet", "empty", "text"],
)
def test_what_is_no_table_of_cells_is_named_in_one_line(
    name: str, table: pd.DataFrame, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    wrong = tmp_path / name
    wrong.write_bytes(table_bytes(table, wrong.suffix[1:]))
    sound = write_cells(_seen(["neutrophil"]), tmp_path / "sound.csv")
    for pair in ((wrong, sound), (sound, wrong)):
        assert run(["compare", *map(str, pair)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"Error: {wrong}: {said}")


def test_a_missing_file_is_wrong_usage_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(tmp_path / "no.csv"), str(tmp_path / "no.csv")]) != 0
    assert "no.csv: cannot be opened" in capsys.readouterr().err
