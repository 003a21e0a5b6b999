"""The output folder of a count: what is refused, what goes with ``overwrite``, and which run is the same run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.example_run import make_run

from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting.cellstable import apply_corrections
from napari_bloodcells.core.counting.options import CountOptions
from napari_bloodcells.core.counting.output import check_output, read_table, table_bytes
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


def _reviewed() -> pd.DataFrame:
    cells = make_run({"": 1}).cells
    return cells.assign(machine_class=cells["class"], reviewed=True, reviewer="Ada", time="")


def _quoted(text: str) -> bytes:
    """As R and LibreOffice save it."""
    return "".join(",".join(f'"{part}"' for part in line.split(",")) + "\n" for line in text.splitlines()).encode()


SAVED: dict[str, Callable[[str], bytes]] = {
    "quoted": _quoted,
    "semicolons": lambda text: text.replace(",", ";").encode("utf-8-sig"),
    "quoted, with semicolons": lambda text: _quoted(text).replace(b",", b";"),
    "tabs, Unicode text": lambda text: text.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "a column less": lambda text: text.replace(",time\n", "\n").replace(",\n", "\n").encode(),
}


@pytest.mark.parametrize("program", SAVED)
def test_a_review_that_another_program_saved_is_not_overwritten(tmp_path: Path, program: str) -> None:
    table, save = tmp_path / "cells.csv", SAVED[program]
    text = table_bytes(make_run({"": 1}).cells, "csv", cells=True).decode()
    table.write_bytes(save(text))  # of the machine alone
    check_output(tmp_path, [GREY], CountOptions(overwrite=True))
    table.write_bytes(save(table_bytes(_reviewed(), "csv", cells=True).decode()))
    with pytest.raises(UsageError, match=r"cells\.csv holds the classes of a reviewer"):
        check_output(tmp_path, [GREY], CountOptions(overwrite=True))


def test_a_review_beside_the_table_of_the_count_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "cells.csv").write_bytes(table_bytes(make_run({"": 1}).cells, "csv", cells=True))
    (tmp_path / "cells.json").write_bytes(table_bytes(_reviewed(), "json", cells=True))
    with pytest.raises(UsageError, match=r"cells\.json holds the classes of a reviewer"):
        check_output(tmp_path, [GREY], CountOptions(overwrite=True))


def test_a_result_goes_over_a_review_only_with_a_review_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    result = count([GREY], str(tiny_model), "whole", "cpu")
    folder = result.to_csv(tmp_path / "out")
    kept = (folder / "cells.csv").read_bytes()
    corrected = apply_corrections(result.cells, result.cells.assign(**{"class": "monocyte", "reviewer": "Ada"}))
    replace(result, cells=corrected).to_csv(folder, overwrite=True)
    reviewed = (folder / "cells.csv").read_bytes()
    assert reviewed != kept
    with pytest.raises(OutputError, match=r"^.*out: cells\.csv holds the classes of a reviewer, which are not overwri"):
        result.to_csv(folder, overwrite=True)
    assert (folder / "cells.csv").read_bytes() == reviewed
    replace(result, cells=corrected.assign(reviewer="Bea")).to_csv(folder, overwrite=True)
    assert read_table(folder / "cells.csv")["reviewer"].tolist() == ["Bea"]


def test_a_json_table_comes_back_as_it_was_written(tmp_path: Path) -> None:
    cells = _reviewed().head(2).assign(image=["001", "1e5"], label=["1", "02"], reviewer="7", time="2026-11-30")
    made = {"x_min": [100.0, 7.0], "distance": [0.1 + 0.2, float("nan")], "class": ["true", "NaN"]}
    images = pd.DataFrame({"image": ["007", "010"], "date": [1, 2], "n_rbc": pd.array([None, None], "Int64")})
    for name, table in (("cells", cells.assign(**made)), ("images", images)):
        (tmp_path / f"{name}.json").write_bytes(table_bytes(table, "json"))
        back = read_table(tmp_path / f"{name}.json")
        pd.testing.assert_frame_equal(back, table.astype({"n_rbc": "float64"} if name == "images" else {}))


def test_a_json_table_without_cells_has_their_columns(tmp_path: Path) -> None:
    (tmp_path / "cells.json").write_bytes(table_bytes(_reviewed().head(0), "json", cells=True))
    assert {"image", "cell", "class", "x_min"} <= set(read_table(tmp_path / "cells.json"))


@pytest.mark.parametrize("text", ["{}", '{"image": "a"}', "3", "[1]", '["image"]', "[" * 100_000])
def test_json_that_is_no_list_of_rows_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.json").write_text(text)
    with pytest.raises(OutputError, match=r"images\.json: cannot be read \("):
        read_table(tmp_path / "images.json")


@pytest.mark.parametrize("kind", ["file", "local"])
def test_nothing_is_written_into_a_local_folder_given_as_an_address(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match="lies inside of the images' folder"):
        check_output(tmp_path / "out", f"{kind}://{tmp_path}", CountOptions())
    assert not (tmp_path / "out").exists()


def test_a_place_that_the_system_refuses_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"x{300}: cannot be looked into \(File name too long\)"):
        check_output(tmp_path / ("x" * 300), [GREY], CountOptions())


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_names_that_a_table_must_escape_come_back_one_by_one(tiny_model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in (b"a\rb.png", b"a\\rb.png", b"\xe9.png", b"\\udce9.png"):
        Image.fromarray(GREY).save(tmp_path / "drawn.png")
        shutil.copyfile(tmp_path / "drawn.png", folder / os.fsdecode(name))
    result = count(folder, str(tiny_model), "whole", "cpu", options=CountOptions(output=out))
    names = list(result.images["image"])
    assert len(set(names)) == 4
    assert list(read_table(out / "cells.csv")["image"]) == list(read_table(out / "images.csv")["image"]) == names


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
