"""Sample data: a drawn smear whose cells are known, and real fields of BCCD.

The BCCD fields come from the folder in ``$BLOODCELLS_DATA`` where there is one, else they are fetched once from the
public repository (MIT) and checked by their SHA-256; nothing is fetched before the sample is asked for.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from napari_bloodcells.core.errors import ImageError
from napari_bloodcells.napari.geometry import rectangles
from napari_bloodcells.napari.series import image_layer

LayerData = tuple[Any, dict[str, Any], str]

SEED = 11
CELLS = ("neutrophil", "lymphocyte", "monocyte", "neutrophil", "eosinophil", "basophil", "neutrophil", "lymphocyte")
BCCD_URL = "https://raw.githubusercontent.com/Shenggan/BCCD_Dataset/master/BCCD/"
BCCD_SHA256 = {
    "JPEGImages/BloodImage_00000.jpg": "e1dcc488889acba247a895df7be839e514850030217b4025048619f664fd4cb3",
    "JPEGImages/BloodImage_00010.jpg": "814dad6947309a9ada5383ab622c6f548302c91be9db436d1f2a6030088cedca",
    "JPEGImages/BloodImage_00033.jpg": "0efd35031deafd16fc38ffd322a364ea80afa0f583e68adf65c10193ae1f126a",
    "JPEGImages/BloodImage_00100.jpg": "af005b91a03a5c1a3f6b2075789e8fa9e0936655e36053747822a2576f81a3dd",
    "JPEGImages/BloodImage_00200.jpg": "e7c5c4b6f977f5a5915b51af9dc370eb09d5a73a636cd52bbc62d633f2a9c475",
    "JPEGImages/BloodImage_00307.jpg": "fb950fc62c3495ed905855b02576916a345a12245f67f3f030b392d20257097a",
    "Annotations/BloodImage_00000.xml": "655ee0c67cbac5bf3961e017c75b130be1995f824557916eabdbe99d29fae101",
    "Annotations/BloodImage_00010.xml": "5baf456c7f95c63535ba85968e7fb304b24f64d044bc2bad01c93510bff67076",
    "Annotations/BloodImage_00033.xml": "974b6804385ca9b65deb3015937c99626004a9611a54fba9e5976b7e56f91a95",
    "Annotations/BloodImage_00100.xml": "70f647497a1d0cbcb160d83dddce6435576d7741c568ed4c67aaaa322a5811f6",
    "Annotations/BloodImage_00200.xml": "faa565cfb59ec9b0adc1ac2ffee732a6f00e4b0e4966cdd114fea08199e58df6",
    "Annotations/BloodImage_00307.xml": "37d76dd067b8a3d9d9c15e29290738801e4613420dd126ef5ae1fefb423333ed",
}


def synthetic_smear() -> list[LayerData]:
    """A drawn field of eight white cells of all five types, and its truth as a hidden layer."""
    from napari_bloodcells.synthetic import SmearSettings, draw_smear

    smear = draw_smear(SEED, SmearSettings(width=1000, height=750, cells=CELLS, platelets=10))
    boxes = [tuple(map(float, box)) for box in smear.boxes.xyxy]
    truth: dict[str, Any] = {
        "name": "truth",
        "shape_type": "rectangle",
        "edge_width": 2,
        "edge_color": "white",
        "face_color": "transparent",
        "features": {"truth": list(smear.boxes.labels)},
        "text": {"string": "{truth}", "color": "black", "size": 10, "anchor": "lower_left"},
        "visible": False,
    }
    image = (smear.image, {"name": "drawn smear", "rgb": True}, "image")
    return [image, (rectangles(boxes), truth, "shapes")]  # type: ignore[arg-type]


def bccd_fields() -> list[LayerData]:
    """Six real fields as a series, with their VOC files on disk (*Run* takes the boxes from there)."""
    folder = local_bccd() or fetch_bccd()
    images = [folder / name for name in BCCD_SHA256 if name.startswith("JPEGImages")]
    return [image_layer(images, [p.name for p in images], "BCCD")]


def local_bccd() -> Path | None:
    """The BCCD folder of a local mirror (``$BLOODCELLS_DATA/bccd``), where it holds the fields of the sample."""
    named = os.environ.get("BLOODCELLS_DATA")
    folder = Path(named) / "bccd" if named else None
    return folder if folder and all((folder / name).is_file() for name in BCCD_SHA256) else None


def fetch_bccd() -> Path:
    """Fetch the fields of the sample into the user's cache, or take them from there; their folder.

    Raises
    ------
    ImageError
        There is no network, or a file is not the one that is expected.
    """
    import pooch

    fetcher = pooch.create(pooch.os_cache("napari-bloodcells") / "bccd", BCCD_URL, registry=BCCD_SHA256)
    try:
        for name in BCCD_SHA256:
            fetcher.fetch(name)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ImageError(
            f"BCCD: the sample fields cannot be fetched ({reason}); go online once, or name the folder of your own "
            "copy in BLOODCELLS_DATA (it holds bccd/JPEGImages and bccd/Annotations)."
        ) from error
    return Path(fetcher.path)
