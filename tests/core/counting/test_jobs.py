"""What is counted, by what name, and which mixtures are refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_bloodcells.core import images as images_module
from napari_bloodcells.core import remotefolder as remotefolder_module
from napari_bloodcells.core.boxes import Boxes
from napari_bloodcells.core.bundle import load_model
from napari_bloodcells.core.count import count
from napari_bloodcells.core.counting import cells as cells_module
from napari_bloodcells.core.counting.cellstable import apply_corrections
from napari_bloodcells.core.counting.jobs import collect_jobs
from napari_bloodcells.core.counting.options import CountOptions, check_options
from napari_bloodcells.core.counting.output import read_finished, read_table
from napari_bloodcells.core.counting.overlay import write_overlays
from napari_bloodcells.core.counting.picture import Picture
from napari_bloodcells.core.cropfolder import _free_name
from napari_bloodcells.core.errors import DataWarning, OutputError, UsageError
from napari_bloodcells.core.remotefolder import RemoteFile, RemoteFolder
from napari_bloodcells.core.report.inputs import from_result, loader


def test_paths_have_the_names_they_were_given(smears: Path, tiny_model: Path) -> None:
    image = next(smears.rglob("*.png"))
    result = count({"patient 7": image}, str(tiny_model), "whole", "cpu")
    assert result.images["image"].tolist() == ["patient 7"]
    assert result.images["status"].tolist() == ["ok"]


def test_addresses_and_folders_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RemoteFile("https://a/x/1.png", "1.png", Path("/https/a/x/1.png"))
    monkeypatch.setattr(remotefolder_module, "list_remote", lambda address, recursive: RemoteFolder((file,)))
    with pytest.raises(UsageError, match="folders of this machine or addresses, not both"):
        collect_jobs(["https://a/x", str(tmp_path)])
    with pytest.raises(UsageError, match="end with the same name; count them one after the other"):
        collect_jobs(["https://a/x", "https://b/x"], annotations=False)
    listed = collect_jobs(["https://a/x", "https://a/y/"], annotations=False)
    assert [job.image for job in listed.jobs] == ["x/1.png", "y/1.png"]


def test_results_are_no_images(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    count(smears / "a", str(tiny_model), "whole", "cpu", options=CountOptions(output=out))
    with pytest.raises(UsageError, match="holds the results of a count, not images"):
        count(out, str(tiny_model), "whole", "cpu")


def test_boxes_for_other_images_are_refused(tiny_model: Path) -> None:
    pictures, box = [np.full((60, 60, 3), 230, np.uint8)] * 2, Boxes(np.array([[5, 5, 40, 40]]), ("WBC",))
    with pytest.raises(UsageError, match="one image, but there are several"):
        count(pictures, str(tiny_model), box, "cpu")
    with pytest.raises(UsageError, match="Boxes were given for array 9"):
        count(pictures, str(tiny_model), {"array 9": box}, "cpu")


def test_a_field_without_xml_is_named_where_xml_was_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    for number in range(2):
        Image.new("RGB", (60, 60), "white").save(tmp_path / f"{number}.png")
    xml = "<object><name>WBC</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>40</xmax><ymax>40</ymax></bndbox></object>"
    size = "<size><width>60</width><height>60</height></size>"
    (tmp_path / "1.xml").write_text(f"<annotation><filename>1.png</filename>{size}{xml}</annotation>")
    result = count(tmp_path, str(tiny_model), "xml", "cpu")
    assert result.images["status"].tolist() == [
        "0.png: has no XML; take --boxes auto to have its cells found.",
        "ok",
    ]
    assert result.failed["image"].tolist() == ["0.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "xlsx"}, "format must be csv, parquet, json, not 'xlsx'"),
        ({"max_pixels": 0}, "max_pixels must be above zero, not 0"),
        ({"find_threshold": 0.0}, r"find_threshold must lie between 0 and 1 \(neither of them\), not at 0"),
        ({"find_threshold": 1.0}, r"find_threshold must lie between 0 and 1 \(neither of them\), not at 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    smears: Path, tiny_model: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        count(smears, str(tiny_model), "whole", "cpu", options=CountOptions(output=tmp_path / "o", **options))


@pytest.mark.parametrize("address", ["memory://results", "s3://me:secret@bucket/x", Path("gs://bucket"), "S3:/b"])
def test_results_are_not_written_to_an_address(
    smears: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^(memory|s3|gs|S3)://\.\.\.: is an address.+ folder of this machine"):
        count(smears, str(tiny_model), "xml", "cpu", options=CountOptions(output=address))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["C:/results", "c:results", "results", "a/memory:/b", "results: new"])
def test_a_drive_of_windows_and_a_folder_with_a_colon_are_no_address(folder: str) -> None:
    check_options(CountOptions(output=folder))


def test_what_a_choice_cannot_use_is_refused(smears: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="the classical one has none"):
        count(smears, str(tiny_model), "classical", "cpu", options=CountOptions(find_threshold=0.5))
    model = load_model(tiny_model, "cpu")
    for options in (CountOptions(cluster="local:2"), CountOptions(devices=("cpu", "cpu"))):
        with pytest.raises(UsageError, match="A loaded model counts in this process alone"):
            count(smears, model, "whole", "cpu", options=options)


def test_a_file_is_no_folder_for_results(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "o").write_text("mine")
    with pytest.raises(UsageError, match="is a file; give a folder with -o"):
        count(smears, str(tiny_model), "whole", "cpu", options=CountOptions(output=tmp_path / "o"))
    assert (tmp_path / "o").read_text() == "mine"


@pytest.mark.parametrize("text", ["{", "[]", '{"fingerprint": [1]}', '{"times": {}}'])
def test_a_run_that_says_nothing_of_itself_is_not_taken_for_finished(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(OutputError, match=r"run\.json: is damaged; give another folder with -o"):
        read_finished(tmp_path, {}, "csv")


@pytest.mark.parametrize("name", ["images.csv", "images.json", "images.parquet"])
def test_a_damaged_table_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'"a\x00')
    with pytest.raises(OutputError, match=rf"{name}: cannot be read"):
        read_table(tmp_path / name)


def test_a_large_table_is_made_in_parts_and_is_the_same(
    smears: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = count(smears / "a", str(tiny_model), "xml", "cpu").cells
    assert len(whole) > 8
    for rows in (4, 5, len(whole)):  # the last part is empty, or not
        monkeypatch.setattr(cells_module, "_ROWS", rows)
        pd.testing.assert_frame_equal(count(smears / "a", str(tiny_model), "xml", "cpu").cells, whole)


def test_a_second_correction_keeps_what_the_machine_said_first() -> None:
    row = {"image": "a", "cell": 1, "x_min": 0.0, "y_min": 0.0, "x_max": 9.0, "y_max": 9.0, "class": "neutrophil"}
    first = apply_corrections(pd.DataFrame([row]), pd.DataFrame([{**row, "class": "monocyte", "reviewer": "A"}]))
    second = apply_corrections(first, pd.DataFrame([{**row, "class": "basophil", "reviewer": "B"}]))
    assert second[["class", "machine_class", "reviewer"]].iloc[0].tolist() == ["basophil", "neutrophil", "B"]


def test_images_that_are_gone_have_no_overlay(tiny_model: Path, smears: Path, tmp_path: Path) -> None:
    arrays = count([np.full((60, 60, 3), 230, np.uint8)], str(tiny_model), "whole", "cpu")
    assert write_overlays(arrays, tmp_path) == []
    copytree(smears / "a", tmp_path / "a")
    counted = count(tmp_path / "a", str(tiny_model), "xml", "cpu")
    rmtree(tmp_path / "a")
    with pytest.warns(DataWarning, match=r"is not drawn \("):
        assert write_overlays(counted, tmp_path / "drawn") == []


def test_the_limit_of_pixels_holds_for_overlay_and_report_too(
    tiny_model: Path, smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = min((smears / "a").glob("*.png"))
    counted = count(file, str(tiny_model), "whole", "cpu", options=CountOptions(max_pixels=320 * 240))
    asked = []
    read_image = images_module.read_image
    monkeypatch.setattr(
        images_module, "read_image", lambda path, **more: asked.append(more["max_pixels"]) or read_image(path, **more)
    )
    assert len(write_overlays(counted, tmp_path)) == 1
    assert from_result(counted).load(file.name) is not None
    assert asked == [320 * 240] * 2
    with pytest.warns(DataWarning, match=rf"^{file.name}: has no picture \("):
        assert loader(file.parent, max_pixels=9)(file.name) is None


def test_a_picture_read_whole_is_not_read_again() -> None:
    picture = Picture(np.zeros((4, 4, 3), np.uint8), 4, 4)
    assert picture.whole() is picture


def test_crops_of_one_name_are_kept_apart_as_far_as_letters_go(tmp_path: Path) -> None:
    for letter in ("", *"bcdefghijklmnopqrstuvwxyz"):
        assert _free_name(tmp_path, "a_1", ()).name == f"a_1{letter}.png"
        (tmp_path / f"a_1{letter}.png").touch()
    with pytest.raises(OutputError, match=r"a_1\.png: too many photographs of this name"):
        _free_name(tmp_path, "a_1", ())
    assert _free_name(tmp_path, "b", {"b"}).name == "bb.png", "a crop of another class is called so"
