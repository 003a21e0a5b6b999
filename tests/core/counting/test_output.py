"""The output folder of a count: what is refused, what goes with ``overwrite``, and which run is the same run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.example_run import make_run

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.output import check_output, table_bytes
from napari_bloodcells.core.errors import Cancelled, OutputError, UsageError
from napari_bloodcells.core.images import read_image
from napari_bloodcells.core.progress import Silent

GREY = np.full((60, 60, 3), 230, np.uint8)


def test_a_foreign_table_is_not_replaced_by_resume(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_text("mine")
    with pytest.raises(UsageError, match=r"holds cells\.csv, but no run to go on with"):
        check_output(tmp_path, [GREY], CountOptions(resume=True))
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "plan.json").touch()  # killed while the tables were written
    check_output(tmp_path, [GREY], CountOptions(resume=True))
    assert (tmp_path / "cells.csv").read_text() == "mine"


def test_tables_of_another_format_go_when_they_are_overwritten(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "images.parquet").write_text("mine")
    for format in ("csv", "json"):
        options = CountOptions(output=tmp_path, format=format, overwrite=True)
        count([GREY], str(tiny_model), "whole", "cpu", options=options)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"cells.json", "images.json", "differential.json", "run.json", "images.parquet"}


@pytest.mark.parametrize("format", ["csv", "json"])
def test_cells_that_a_person_reviewed_are_not_overwritten(tmp_path: Path, format: str) -> None:
    cells = make_run({"": 1}).cells
    table = tmp_path / f"cells.{format}"
    table.write_bytes(table_bytes(cells, format, cells=True))
    check_output(tmp_path, [GREY], CountOptions(overwrite=True))
    reviewed = cells.assign(machine_class=cells["class"], reviewed=True, reviewer="Ada", time="")
    table.write_bytes(table_bytes(reviewed, format, cells=True))
    with pytest.raises(UsageError, match=rf"cells\.{format} holds the classes of a reviewer, which are not"):
        check_output(tmp_path, [GREY], CountOptions(overwrite=True))


@pytest.mark.parametrize("kind", ["file", "list", "mapping"])
def test_nothing_is_written_beside_a_photograph(tmp_path: Path, kind: str) -> None:
    photo = tmp_path / "in" / "a.png"
    photo.parent.mkdir()
    photo.touch()
    sources = {"file": photo, "list": [str(photo)], "mapping": {"a": photo}}[kind]
    with pytest.raises(UsageError, match="inside of the images' folder"):
        check_output(tmp_path / "in", sources, CountOptions())
    check_output(tmp_path / "in-differential", sources, CountOptions())
    with pytest.raises(UsageError, match="inside of the images' folder"):
        check_output(tmp_path / "in" / "deep", {"all": tmp_path / "in"}, CountOptions())


def test_other_pixels_boxes_or_limits_are_another_run(tiny_model: Path, tmp_path: Path) -> None:
    model, box = tmp_path / "model", Boxes(np.array([[5, 5, 40, 40]]), ("WBC",))
    shutil.copytree(tiny_model, model)

    def resume(image: np.ndarray, boxes: Boxes | str = box, output: str = "out") -> None:
        options = CountOptions(output=tmp_path / output, resume=True, um_per_pixel=0.2)
        count([image], str(model), boxes, "cpu", options=options)

    resume(GREY)
    resume(GREY.copy())
    with pytest.raises(OutputError, match="the list of images differs"):
        resume(GREY - 1)
    with pytest.raises(OutputError, match="the given boxes differs"):
        resume(GREY, Boxes(box.xyxy + 1, ("WBC",)))
    text = (model / "model.json").read_text()
    for name, value in (("temperature", 2.0), ("min_confidence", 0.9), ("max_distance", 1.0)):
        (model / "model.json").write_text(json.dumps({**json.loads(text), name: value}))
        with pytest.raises(OutputError, match=f"the model's {name} differs"):
            resume(GREY)


def test_nothing_is_written_beside_photographs_that_a_generator_gives(
    smears: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(smears / "a", folder)
    with pytest.raises(UsageError, match="inside of the images' folder"):
        count(folder.glob("*.png"), str(tiny_model), "xml", "cpu", options=CountOptions(output=folder))
    result = count(folder.glob("*.png"), str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "out"))
    assert len(result.images) == 6
    assert len(count((read_image(f) for f in folder.glob("*0.png")), str(tiny_model), "whole", "cpu").images) == 1


def test_nothing_is_written_into_a_folder_that_a_link_leads_to(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder, real, single = tmp_path / "in", tmp_path / "real" / "deep", tmp_path / "single"
    shutil.copytree(smears / "a", real)
    single.mkdir()
    shutil.copy(min(real.glob("*.png")), single / "z.png")
    folder.mkdir()
    (folder / "far").symlink_to(real.parent)
    (folder / "z.png").symlink_to(single / "z.png")
    for place in (real, real.parent, real.parent / "out", single):
        with pytest.raises(UsageError, match="inside of the images' folder"):
            count(folder, str(tiny_model), "xml", "cpu", options=CountOptions(output=place))
    assert not (real.parent / "out").exists()
    assert len(count(folder, str(tiny_model), "xml", "cpu", options=CountOptions(output=tmp_path / "out")).images) == 7


class _StopsAtOnce(Silent):
    def cancelled(self) -> bool:
        return True


def test_labels_that_were_edited_are_another_run(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("1.png", "2.png"):
        shutil.copy(min((smears / "a").glob("*.png")), folder / name)

    def go_on(label: str, progress: Silent) -> list[str]:
        (folder / "labels.csv").write_text(f"image,label\n1.png,{label}\n2.png,{label}\n")
        options = CountOptions(output=tmp_path / "out", resume=True, batch_size=1)
        return count(folder, str(tiny_model), "whole", "cpu", progress, options).cells["label"].tolist()

    with pytest.raises(Cancelled):
        go_on("monocyte", _StopsAtOnce())
    with pytest.raises(OutputError, match="the list of labels differs"):
        go_on("basophil", Silent())
    assert go_on("monocyte", Silent()) == ["monocyte"] * 2


def test_a_finished_run_in_another_format_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    def go_on(format: str) -> None:
        options = CountOptions(output=tmp_path, format=format, resume=True)
        count([GREY], str(tiny_model), "whole", "cpu", options=options)

    go_on("csv")
    go_on("csv")
    with pytest.raises(UsageError, match=r"its tables as csv, not json; say --format csv, or count again"):
        go_on("json")
