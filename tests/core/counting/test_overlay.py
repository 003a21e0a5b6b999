"""The name of an overlay lies below its folder, whatever the image is called and on whatever drive it is."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from napari_bloodcells.core.counting import overlay
from napari_bloodcells.core.counting.overlay import overlay_name


@pytest.mark.parametrize(
    ("image", "windows", "expected"),
    [
        ("D:/smears/1.jpg", True, "D/smears/1.jpg.jpg"),
        ("D:/smears/1.jpg", False, "D/smears/1.jpg.jpg"),
        ("D:", True, "D.jpg"),
        ("D:1.jpg", True, "D_1.jpg.jpg"),
        ("10:30.jpg", True, "10_30.jpg.jpg"),
        ("10:30.jpg", False, "10:30.jpg.jpg"),
        ("//server/share/1.jpg", True, "server/share/1.jpg.jpg"),
        ("..\\..\\1.jpg", True, "1.jpg.jpg"),
        ("C:\\smears\\1.jpg", True, "C/smears/1.jpg.jpg"),
        ("a\\1.jpg", False, "a\\1.jpg.jpg"),
    ],
)
def test_no_overlay_lies_outside_of_its_folder(
    image: str, windows: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overlay, "_WINDOWS", windows)
    assert overlay_name(image) == expected
    for folder in (PureWindowsPath("C:/out/overlay"), PurePosixPath("/out/overlay")) if windows else ():
        assert folder in (folder / overlay_name(image)).parents
        assert folder in (folder / overlay_name(image, slide=True)).parents
