"""The cells of a count, cut at its scale: by a reviewer's class where there is one, else by the machine's."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_bloodcells.cli.app import run as call
from napari_bloodcells.core.count import count
from napari_bloodcells.core.countedcells import holds_count, read_counted
from napari_bloodcells.core.counting.cellstable import read_cells, write_cells
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.crops import CropSpec, cut_crops
from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.errors import DataSetError
from napari_bloodcells.core.images import read_image


@pytest.fixture(scope="module")
def counted(smears: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a count of twelve fields that lie beside it, in two samples."""
    root = tmp_path_factory.mktemp("counted")
    shutil.copytree(smears, root / "slides")
    options = CountOptions(output=root / "slides-differential", um_per_pixel=0.15)
    count(root / "slides", str(tiny_model), "xml", "cpu", options=options)
    return root / "slides-differential"


@pytest.fixture
def corrected(counted: Path, tmp_path: Path) -> Path:
    """What the report page exports: two cells looked at, one of them put into another class."""
    cells = read_cells(counted / "cells.csv")
    cells["machine_class"], cells["reviewed"] = cells["class"], False
    cells.loc[[0, 1], "reviewed"] = True
    cells.loc[0, "class"] = "not a WBC"
    cells["reviewer"], cells["time"] = "", ""
    return write_cells(cells, tmp_path / "corrected.csv")


def files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.png"))


def test_the_cells_of_a_count_go_to_the_classes_of_its_table(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["crop", str(counted), "-o", str(tmp_path / "out")]) == 0
    cells = read_cells(counted / "cells.csv")
    wanted = [
        f"{row['class']}/{row['image'].removesuffix('.png').replace('/', '_')}_{row['cell']}_machine.png"
        for row in cells.to_dict("records")
    ]
    assert files(tmp_path / "out") == sorted(wanted)
    assert len(wanted) == len(cells) > 30
    assert f"0 cells by the class of a reviewer (..._reviewed.png), {len(cells)} by that of the machine" in (
        capsys.readouterr().out
    )


def test_they_are_cut_at_the_scale_of_the_count(counted: Path, tmp_path: Path) -> None:
    assert call(["crop", str(counted), "-o", str(tmp_path), "--size", "48"]) == 0
    row = read_cells(counted / "cells.csv").iloc[4]
    image = read_image(counted.with_name("slides") / row["image"])
    box = row[["x_min", "y_min", "x_max", "y_max"]].to_numpy(np.float32)[None]
    (made,) = tmp_path.glob(f"*/{row['image'].removesuffix('.png').replace('/', '_')}_{row['cell']}_*.png")
    pixels = np.asarray(Image.open(made))
    wanted, other = (cut_crops(image, box, CropSpec(size=48), scale)[0].permute(1, 2, 0) for scale in (0.15, 0.2))
    assert np.array_equal(pixels, wanted.numpy())
    assert not np.array_equal(pixels, other.numpy())


def test_a_reviewer_overrules_the_machine_and_the_names_say_who_it_was(
    counted: Path, corrected: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(["crop", str(counted), "-o", str(out), "--corrections", str(corrected)]) == 0
    cells = read_cells(corrected)
    looked = [
        f"{row['class']}/{row['image'].removesuffix('.png').replace('/', '_')}_{row['cell']}_reviewed.png"
        for row in cells.head(2).to_dict("records")
    ]
    assert looked[0].startswith("not a WBC/")
    assert [name for name in files(out) if name.endswith("_reviewed.png")] == sorted(looked)
    assert len(files(out)) == len(cells)
    assert "2 cells by the class of a reviewer" in capsys.readouterr().out


def test_tables_that_lie_beside_the_photographs_are_those_of_the_count_there_xml_or_not(
    counted: Path, corrected: Path, tmp_path: Path
) -> None:
    photographs = tmp_path / "photographs"
    shutil.copytree(counted.with_name("slides"), photographs)
    shutil.copy(corrected, photographs / "cells.csv")
    shutil.copy(counted / "images.csv", photographs)
    found = read_counted(photographs)
    assert found.dataset.root == photographs.resolve()
    cells = read_cells(corrected)
    assert [sample.label for sample in found.dataset.samples] == cells["class"].tolist()
    assert [sample.sure for sample in found.dataset.samples] == cells["reviewed"].tolist()
    assert {sample.um_per_pixel for sample in found.dataset.samples} == {0.15}
    assert set(found.sizes.values()) == {(320, 240)}
    assert set(found.dataset.groups) <= {f"photographs:{s}/smear_{i:04d}" for s in "ab" for i in range(12)}


def test_a_folder_with_its_corrected_table_is_labeled_by_it_and_not_by_the_xml(
    counted: Path, corrected: Path, tmp_path: Path
) -> None:
    shutil.copytree(counted.parent / "slides", tmp_path / "slides")
    assert list((tmp_path / "slides").rglob("*.xml"))
    by_xml = load_dataset(tmp_path / "slides")
    shutil.copy(corrected, tmp_path / "slides" / "cells.csv")
    by_table = load_dataset(tmp_path / "slides", "wbc5")
    assert (by_xml.reader, by_table.reader) == ("voc", "boxes")
    looked_at = [sample for sample in by_table.samples if sample.sure]
    cells = read_cells(corrected)
    assert [sample.label for sample in looked_at] == [None, cells["class"][1]]
    unseen = cells.assign(reviewed=False)
    write_cells(unseen, tmp_path / "slides" / "cells.csv", overwrite=True)
    assert load_dataset(tmp_path / "slides").reader == "voc"


def test_a_count_that_nobody_reviewed_gives_no_labels(counted: Path, corrected: Path, tmp_path: Path) -> None:
    told = "cells.csv: cells of a count that nobody reviewed; the machine's classes are no labels."
    shutil.copytree(counted.parent / "slides", tmp_path / "slides")
    for xml in (tmp_path / "slides").rglob("*.xml"):
        xml.unlink()
    shutil.copy(counted / "cells.csv", tmp_path / "slides")
    with pytest.raises(DataSetError, match=f"^slides: .* images but no labels; .*{told}$"):
        load_dataset(tmp_path / "slides")
    (tmp_path / "slides" / "a").rename(tmp_path / "slides" / "monocyte")
    (tmp_path / "slides" / "b").rename(tmp_path / "slides" / "lymphocyte")
    by_folder = load_dataset(tmp_path / "slides")
    assert by_folder.reader == "tree"
    assert by_folder.problems.count(told) == 1
    # nor does it add the same cells again to those of the corrected table beside it
    shutil.rmtree(tmp_path / "slides")
    shutil.copytree(counted.parent / "slides", tmp_path / "slides")
    shutil.copy(corrected, tmp_path / "slides")
    alone = load_dataset(tmp_path / "slides")
    shutil.copy(counted / "cells.csv", tmp_path / "slides")
    assert load_dataset(tmp_path / "slides").samples == alone.samples


def test_a_class_changed_by_hand_is_a_reviewers(counted: Path, corrected: Path) -> None:
    cells = read_cells(corrected)
    cells["reviewed"] = False
    write_cells(cells, corrected, overwrite=True)
    folder = corrected.parent
    shutil.copy(corrected, folder / "cells.csv")
    found = read_counted(folder, counted.with_name("slides"))
    assert found.n_reviewed == 1
    assert found.names[0].endswith("_1_reviewed")


def test_photographs_that_have_moved_are_named_with_images(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "results"
    moved.mkdir()
    for name in ("cells.csv", "images.csv"):
        shutil.copy(counted / name, moved)
    assert call(["crop", str(moved), "-o", str(tmp_path / "out")]) == 2
    assert "results: the photographs of this count are not where they were; give their folder with --images." in (
        capsys.readouterr().err
    )
    assert call(["crop", str(moved), "-o", str(tmp_path / "out"), "--images", str(counted.with_name("slides"))]) == 0
    assert len(files(tmp_path / "out")) == len(read_cells(counted / "cells.csv"))


def test_photographs_that_are_gone_or_others_are_told_and_the_rest_is_cut(
    counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = tmp_path / "slides"
    shutil.copytree(counted.with_name("slides"), slides)
    (slides / "a" / "smear_0000.png").unlink()
    Image.new("RGB", (321, 240), "white").save(slides / "a" / "smear_0001.png")
    assert call(["crop", str(counted), "-o", str(tmp_path / "out"), "--images", str(slides)]) == 3
    said = capsys.readouterr().err
    assert "Warning: smear_0000.png: cannot be opened: no such file or directory." in said
    assert "Warning: smear_0001.png: has 321 x 240 pixels, but its cells are of an image of 320 x 240;" in said
    cells = read_cells(counted / "cells.csv")
    assert len(files(tmp_path / "out")) == (~cells["image"].isin(["a/smear_0000.png", "a/smear_0001.png"])).sum()


def test_a_table_that_leads_out_of_its_folder_is_not_followed(counted: Path, tmp_path: Path) -> None:
    cells = read_cells(counted / "cells.csv").head(3)
    cells["image"] = ["../slides/a/smear_0000.png", "/slides/1.png", "a/smear_0000.png"]
    write_cells(cells, tmp_path / "cells.csv")
    found = read_counted(tmp_path, counted.with_name("slides"))
    assert [sample.image.name for sample in found.dataset.samples] == ["smear_0000.png"]
    assert [text.partition(":")[0] for text in found.dataset.problems] == list(cells["image"][:2])


def test_other_classes_than_the_schemes_are_unlabeled(counted: Path, corrected: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--corrections", str(corrected), "--scheme", "wbc4"]
    assert call(["crop", str(counted), "-o", str(out), *options]) == 0
    assert "unlabeled" in {place.name for place in out.iterdir()}
    assert not {"not a WBC", "basophil"} & {place.name for place in out.iterdir()}


def test_a_folder_without_a_count_is_a_data_set(
    smears: Path, counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cells.csv").write_text("image,class\na.png,monocyte\n")
    assert [holds_count(folder) for folder in (counted, smears / "a", tmp_path)] == [True, False, False]
    assert call(["crop", str(smears / "a"), "-o", str(tmp_path / "out"), "--images", str(smears)]) == 2
    assert "holds no cells of a count" in capsys.readouterr().err
    assert call(["crop", str(smears / "a"), "-o", str(tmp_path / "out")]) == 0
    truth = pd.read_csv(smears / "a" / "truth.csv")
    assert len(files(tmp_path / "out")) == len(truth)
