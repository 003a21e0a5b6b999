"""What names a patient stays at home: in file names where ``--anonymous`` is said, in EXIF and its like always."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from napari_bloodcells.cli.app import run

PATIENT = "Mustermann"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def with_names(source: Path, folder: Path) -> Path:
    """Drawn fields as a camera saves them, with the patient in every field of every format that holds text."""
    folder.mkdir(parents=True)
    field = Image.open(source / "a" / sorted(p.name for p in (source / "a").glob("*.png"))[0]).convert("RGB")
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = PATIENT, PATIENT  # description, artist
    exif.get_ifd(0x8825)[1] = PATIENT  # where it was taken
    field.save(folder / "1.jpg", exif=exif, comment=PATIENT.encode(), quality=95)
    field.save(folder / "2.webp", exif=exif, lossless=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", PATIENT)
    text.add_itxt("XML:com.adobe.xmp", f"<x>{PATIENT}</x>")
    field.save(folder / "3.png", pnginfo=text, exif=exif)
    tifffile.imwrite(folder / "4.tif", np.asarray(field), photometric="rgb", description=PATIENT, software=PATIENT)
    for path in folder.iterdir():
        assert PATIENT.encode() in path.read_bytes(), f"{path.name} should name the patient, or the test shows nothing"
    return folder


def naming(folder: Path) -> list[str]:
    """The files below ``folder`` that say the patient's name, in their names, bytes or embedded pictures."""
    found = []
    for path in (p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if PATIENT in str(path.relative_to(folder)) or PATIENT.encode() in data:
            found.append(str(path.relative_to(folder)))
        if path.suffix in (".jpg", ".png"):
            picture = Image.open(io.BytesIO(data))
            if len(picture.getexif()) or "comment" in picture.info:
                found.append(f"{path.name}: EXIF")
    return found


def test_exif_and_its_like_are_in_no_output(smears: Path, tiny_model: Path, tmp_path: Path) -> None:
    source, out = with_names(smears, tmp_path / "in"), tmp_path / "out"
    count = ["count", str(source), "-o", str(out), "--model", str(tiny_model), "--boxes", "classical"]
    assert run([*count, "--report", "--overlay"]) == 0
    assert len(list((out / "overlay").glob("*.jpg"))) == 4
    for kind in ("coco", "geojson", "voc", "fhir-r5"):
        assert run(["export", str(out), "--format", kind, "-o", str(tmp_path / kind)]) == 0
    for place in (out, *(tmp_path / kind for kind in ("coco", "geojson", "voc", "fhir-r5"))):
        assert naming(place) == []


def test_anonymous_results_and_logs_name_nobody_even_where_files_are_broken(
    smears: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / f"{PATIENT} Erika", tmp_path / "out"
    source.mkdir()
    for k, path in enumerate(sorted((smears / "a").glob("*.png"))):
        for file in (path, path.with_suffix(".xml")):
            shutil.copy(file, source / f"{PATIENT}_{k}{file.suffix}")
    (source / f"{PATIENT}_broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (source / f"{PATIENT}_0.xml").write_text("<annotation><object>")
    text = (source / f"{PATIENT}_1.xml").read_text()
    (source / f"{PATIENT}_1.xml").write_text(text.replace("<xmin>", "<xmin>-", 1))  # a warning that names the file
    (source / f"{PATIENT}_alone.xml").write_text(text)
    count = ["count", str(source), "-o", str(out), "--model", str(tiny_model), "--anonymous", "--report", "--overlay"]
    assert run(count) == 3
    shown = capsys.readouterr()
    assert naming(out) == []
    assert PATIENT not in shown.out + shown.err
    assert "field" in (out / "images.csv").read_text()
