"""A model adapted to unlabeled cells: a bundle of its own, the old one untouched, and what it does not know is said."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_bloodcells.cli.app import run as call
from napari_bloodcells.core.adapt import Adaptation, adapt, move_model
from napari_bloodcells.core.bundle import load_model, read_bundle
from napari_bloodcells.core.count import count
from napari_bloodcells.core.countedcells import read_counted
from napari_bloodcells.core.counting.cellstable import read_cells, write_cells
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.datasets import load_dataset
from napari_bloodcells.core.errors import Cancelled, DataSetError, ImageError, OutputError, UsageError
from napari_bloodcells.core.model import Model
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.core.training.pack import pack_crops
from napari_bloodcells.synthetic import SmearSettings, write_folder

KINDS = ("neutrophil", "lymphocyte", "monocyte", "eosinophil", "basophil")


@pytest.fixture(scope="module")
def smears_of_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty drawn fields of five cells each with VOC XML."""
    folder = tmp_path_factory.mktemp("five") / "mine"
    write_folder(folder, 20, 3, SmearSettings(cells=KINDS, width=480, height=360, um_per_pixel=0.2))
    return folder


@pytest.fixture(scope="module")
def counted(smears_of_five: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("counted") / "first-look"
    count(smears_of_five, "default", "xml", "cpu", options=CountOptions(output=output))
    return output


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))


def test_the_new_model_is_another_and_the_old_one_is_as_it_was(counted: Path, tmp_path: Path) -> None:
    old = load_model("default", device="cpu")
    before = {k: v.clone() for k, v in old.module.state_dict().items()}
    found = adapt(old, counted, tmp_path / "new", device="cpu")
    new = load_model(found.output, device="cpu")
    n = len(read_cells(counted / "cells.csv"))
    assert sum(found.before.values()) == sum(found.after.values()) == n - found.n_strange
    assert new.info == found.info.model_copy(update={"sha256": new.info.sha256})
    assert (new.info.name, new.info.metrics) == ("wbc5-adapted", ())  # nothing was measured, so nothing is claimed
    assert new.info.training[-1].source == "unlabeled: mine"
    assert new.info.confusions == old.info.confusions
    assert all(torch.equal(before[k], v) for k, v in old.module.state_dict().items())
    assert torch.equal(new.module.body.stem[0].weight, old.module.body.stem[0].weight)
    assert not torch.equal(new.module.head.weight, old.module.head.weight)
    assert old.space is not None
    assert new.space is not None
    assert not torch.equal(new.space.means, old.space.means)


def test_the_counts_are_those_of_the_written_model(smears_of_five: Path, counted: Path, tmp_path: Path) -> None:
    """The table that is printed agrees with a count by the new model."""
    found = adapt("default", counted, tmp_path / "new", device="cpu")
    again = count(smears_of_five, found.output, "xml", "cpu", options=CountOptions(threshold=0.0))
    first = count(smears_of_five, "default", "xml", "cpu", options=CountOptions(threshold=0.0))
    for result, counts in ((first, found.before), (again, found.after)):
        names = result.cells["class"].value_counts().to_dict()
        assert sum(abs(counts[k] - names.get(k, 0)) for k in counts) <= 1 + 2 * found.n_strange


def test_labels_are_not_looked_at(smears_of_five: Path, tmp_path: Path) -> None:
    named = load_dataset(smears_of_five)
    nameless = replace(named, samples=tuple(replace(s, label=None, detail=None) for s in named.samples))
    one, other = (
        adapt("default", data, tmp_path / name, device="cpu") for data, name in ((named, "a"), (nameless, "b"))
    )
    assert one.after == other.after
    assert torch.equal(*(load_model(f.output, device="cpu").module.head.weight for f in (one, other)))


def test_a_folder_of_photographs_is_looked_at_as_its_count_would_be(smears_of_five: Path, tmp_path: Path) -> None:
    """Two patients, a folder each, no XML; and a folder of which a part is enough."""
    for i, file in enumerate(sorted(smears_of_five.glob("*.png"))):
        (tmp_path / "plain" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "plain" / "ab"[i % 2])
    options = CountOptions(output=tmp_path / "counted")
    count(tmp_path / "plain", "default", "find", "cpu", options=options)
    one, other = (adapt("default", tmp_path / d, tmp_path / f"from-{d}", device="cpu") for d in ("plain", "counted"))
    assert (one.before, one.after) == (other.before, other.after)
    assert one.info.training[-1].source == "unlabeled: plain"
    few = adapt_with_fields(14, tmp_path / "plain", tmp_path / "few")
    assert 50 <= sum(few.before.values()) + few.n_strange < sum(one.before.values()) + one.n_strange


def adapt_with_fields(fields: int, data: Path, output: Path) -> Adaptation:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("napari_bloodcells.core.adapt.FIELDS", fields)
        return adapt("default", data, output, device="cpu")


def test_a_folder_without_photographs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none")
    with pytest.raises(DataSetError, match="empty: no photographs there"):
        adapt("default", tmp_path / "empty", tmp_path / "new", device="cpu")


def test_what_a_reviewer_called_no_white_cell_is_left_out(counted: Path, tmp_path: Path) -> None:
    shutil.copytree(counted, tmp_path / "counted")
    cells = read_cells(counted / "cells.csv")
    cells.loc[:3, "class"] = "not a WBC"
    (tmp_path / "counted" / "cells.csv").unlink()
    write_cells(cells, tmp_path / "counted" / "cells.csv")
    found = adapt("default", tmp_path / "counted", tmp_path / "new", device="cpu")
    assert sum(found.before.values()) + found.n_strange == len(cells) - 4


def test_cells_unlike_anything_are_left_out(counted: Path) -> None:
    model = load_model("default", device="cpu")
    crops = torch.cat(
        [torch.full((60, 3, 80, 80), 120, dtype=torch.uint8), torch.zeros(60, 3, 80, 80, dtype=torch.uint8)]
    )
    distance = torch.from_numpy(model.predict(crops).distance)
    limit = float((distance[0] + distance[-1]) / 2)
    nearer = int((distance <= limit).sum())
    assert nearer == 60
    strict = Model(model.info.model_copy(update={"max_distance": limit}), model.module, model.space)
    assert len(move_model(strict, crops).before) == nearer
    everything = Model(model.info.model_copy(update={"max_distance": None}), model.module, model.space)
    assert len(move_model(everything, crops).before) == 120


def test_too_few_cells_are_refused_and_nothing_is_written(smears_of_five: Path, tmp_path: Path) -> None:
    few = load_dataset(smears_of_five).take(range(30))
    with pytest.raises(DataSetError, match=r"mine: [12][0-9] cells that can be used; adapting needs 50 or more"):
        adapt("default", few, tmp_path / "new", device="cpu")
    with pytest.raises(DataSetError, match="mine: no cells; give a folder of photographs"):
        adapt("default", few.take([]), tmp_path / "new", device="cpu")
    assert not (tmp_path / "new").exists()


def test_a_model_of_one_microscope_is_refused(counted: Path, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tiny: was trained on one microscope.*calibrate it"):
        adapt(tiny_model, counted, tmp_path / "new", device="cpu")


def test_a_folder_that_holds_something_is_not_overwritten(counted: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not overwritten"):
        adapt("default", counted, tmp_path, device="cpu")


def test_it_can_be_stopped(counted: Path, tmp_path: Path) -> None:
    class Stopped(Silent):
        def cancelled(self) -> bool:
            return True

    with pytest.raises(Cancelled):
        adapt("default", counted, tmp_path / "new", device="cpu", progress=Stopped())
    assert not (tmp_path / "new").exists()


def test_one_class_alone_is_remarked() -> None:
    info = load_model("default", device="cpu").info
    even = Adaptation(Path("x"), info, {"neutrophil": 60, "lymphocyte": 40}, {}, 0, 0)
    assert even.one_sided == ""
    assert replace(even, before={"neutrophil": 4, "lymphocyte": 96}).one_sided == "lymphocyte"


def test_the_command_says_what_changed(counted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["adapt", "default", str(counted), "-o", str(tmp_path / "new"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    found = adapt("default", counted, tmp_path / "again", device="cpu")
    assert f"{found.n_changed} of {sum(found.after.values())} cells have another class now." in said
    rows = {
        line.split()[1]: line.split() for line in said.splitlines() if line.split()[1:2] and line.split()[1] in KINDS
    }
    assert {name: (int(row[3]), int(row[5])) for name, row in rows.items()} == {
        name: (found.before[name], found.after[name]) for name in KINDS
    }
    assert "Written: " in said
    assert np.array_equal(
        *(load_model(tmp_path / name, device="cpu").module.head.weight.numpy() for name in ("new", "again"))
    )
    assert call(["adapt", "default", str(counted), "-o", str(tmp_path / "new")]) == 1


def test_the_weights_are_those_of_the_old_model_and_not_rounded(counted: Path, tmp_path: Path) -> None:
    """Whatever the processor computes in: another one may compute in full."""
    old = read_bundle("default")[1]
    new = read_bundle(adapt("default", counted, tmp_path / "new", device="cpu").output)[1]
    assert all(torch.equal(p, q) for p, q in zip(old.body.parameters(), new.body.parameters(), strict=True))
    assert {p.dtype for p in new.parameters()} == {torch.float32}


def test_a_count_whose_photographs_are_gone_is_refused(counted: Path, tmp_path: Path) -> None:
    images = tmp_path / "photographs"
    shutil.copytree(read_counted(counted).dataset.root, images)
    next(images.glob("*.png")).unlink()
    with pytest.raises(ImageError, match=r"\.png: cannot be read"):
        adapt("default", counted, tmp_path / "new", images=images, device="cpu")
    assert not (tmp_path / "new").exists()


def test_no_more_cells_are_cut_than_are_looked_at(counted: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("napari_bloodcells.core.adapt.MOST", 80)
    packed = []
    real = pack_crops

    def watched(data, *given):
        packed.append(len(data))
        return real(data, *given)

    monkeypatch.setattr("napari_bloodcells.core.adapt.pack_crops", watched)
    found = adapt("default", counted, tmp_path / "new", device="cpu")
    assert packed == [80] == [sum(found.before.values()) + found.n_strange]
