"""The XML half of the bad-input matrix: good pictures beside annotations that are broken, hostile or odd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.reliability.case import Case


def voc(*boxes: tuple[object, ...], head: str = "", name: str = "WBC") -> str:
    """A VOC annotation with ``boxes`` (x_min, y_min, x_max, y_max), each value written as it is given."""
    corners = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{corner}>{value}</{corner}>" for corner, value in zip(corners, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    size = "<size><width>320</width><height>240</height><depth>3</depth></size>"
    return f"{head}<annotation><filename>field.jpg</filename>{size}{objects}</annotation>"


GOOD = (60, 50, 140, 130)
LAUGHS = "<!DOCTYPE lolz [<!ENTITY a '" + "ha" * 50 + "'>" + "".join(
    f"<!ENTITY {chr(98 + i)} '" + f"&{chr(97 + i)};" * 10 + "'>" for i in range(9)
) + "]>"  # fmt: skip
EXTERNAL = '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
REMOTE = '<!DOCTYPE annotation SYSTEM "http://192.0.2.1/evil.dtd">'
PARAMETER = '<!DOCTYPE annotation [<!ENTITY % p SYSTEM "http://192.0.2.1/p.dtd"> %p;]>'

XML: dict[str, tuple[str | bytes, str]] = {
    "not-well-formed": ("<annotation><object>", "error"),
    "empty": ("", "error"),
    "text": ("WBC 10 10 50 50", "error"),
    "binary": (bytes(range(256)) * 8, "error"),
    "other-root": ("<html><body/></html>", "error"),
    "billion-laughs": (voc(GOOD, head=LAUGHS).replace("field.jpg", "&j;"), "error"),
    "external-entity": (voc(GOOD, head=EXTERNAL).replace("field.jpg", "&x;"), "error"),
    "remote-dtd": (voc(GOOD, head=REMOTE), "either"),
    "parameter-entity": (voc(GOOD, head=PARAMETER), "error"),
    "million-boxes": (voc(*[GOOD] * 1_000_000), "error"),
    "deeply-nested": ("<annotation>" + "<a>" * 100_000 + "</a>" * 100_000 + "</annotation>", "either"),
    "no-objects": (voc(), "ok"),
    "negative": (voc((-50, -20, 60, 70), GOOD), "ok"),
    "inverted": (voc((140, 130, 60, 50)), "either"),
    "no-area": (voc((60, 50, 60, 50), GOOD), "ok"),
    "outside": (voc((4000, 4000, 5000, 5000), GOOD), "ok"),
    "past-the-border": (voc((250, 180, 900, 900)), "ok"),
    "nan": (voc(("nan", 50, 140, 130), GOOD), "either"),
    "infinite": (voc((60, 50, "inf", 130), GOOD), "either"),
    "huge-number": (voc((60, 50, "9" * 400, 130), GOOD), "either"),
    "words": (voc(("left", 50, 140, 130), GOOD), "either"),
    "float": (voc((60.25, 50.5, 140.75, 130.5)), "ok"),
    "missing-corner": (voc(GOOD).replace("<xmax>140</xmax>", ""), "either"),
    "missing-bndbox": (voc(GOOD).replace("bndbox", "box"), "either"),
    "missing-name": (voc(GOOD).replace("<name>WBC</name>", ""), "either"),
    "missing-size": (voc(GOOD).replace("<size>", "<sise>").replace("</size>", "</sise>"), "ok"),
    "wrong-size": (voc(GOOD).replace("320", "64"), "error"),
    "utf-16": (voc(GOOD, head='<?xml version="1.0" encoding="UTF-16"?>').encode("utf-16"), "ok"),
    "latin-1": (
        b'<?xml version="1.0" encoding="ISO-8859-1"?>' + voc(GOOD, name="L\xe4us").encode("latin-1"),
        "ok",
    ),
    "unknown-encoding": (voc(GOOD, head='<?xml version="1.0" encoding="klingon"?>'), "error"),
    "byte-order-mark": (b"\xef\xbb\xbf" + voc(GOOD).encode(), "ok"),
    "wrong-filename": (voc(GOOD).replace("field.jpg", "../../other.jpg"), "ok"),
    "script-name": (voc(GOOD, name="&lt;script&gt;alert(1)&lt;/script&gt;"), "either"),
    "cdata": (voc(GOOD).replace("<name>WBC</name>", "<name><![CDATA[WBC]]></name>"), "ok"),
    "namespace": (voc(GOOD).replace("<annotation>", '<annotation xmlns="urn:x">', 1), "either"),
}


def annotations(folder: Path, image: bytes) -> Iterator[Case]:
    """One good picture per XML of the table; an XML with no picture; and a picture with two."""
    for name, (xml, expect) in XML.items():
        (folder / f"{name}.jpg").write_bytes(image)
        (folder / f"{name}.xml").write_bytes(xml if isinstance(xml, bytes) else xml.encode())
        yield Case(folder / f"{name}.jpg", expect)  # type: ignore[arg-type]
    (folder / "no-picture.xml").write_text(voc(GOOD))
