"""What OpenGL in software (Mesa's llvmpipe: remote desktops, virtual machines, tests) needs so as not to crash.

Its LLVM and the one in ``triton`` do not go together in one process: importing triton, which torch does on the first
optimizer step, is a segmentation fault.  Nothing here needs triton, so it is kept out.

And Mesa 22.3 ends in a segmentation fault when a layer was removed and the next one is drawn: it still looks at the
shader program that vispy deleted with the layer (seen with plain napari 0.9.2, a Shapes layer added, removed and
added again; without the deletion of programs it draws on).  So programs are kept, a few kB for each removed layer.
"""

from __future__ import annotations

import sys
from pathlib import Path

_DRIVERS = ("swrast_dri", "libgallium")
_COMPILERS = ("libLLVM", "libgallium")


def keep_triton_out() -> None:
    """Make ``import triton`` an ImportError where Mesa's LLVM is in this process."""
    if "triton" not in sys.modules and _mapped(_COMPILERS):
        sys.modules["triton"] = None  # type: ignore[assignment]


def keep_programs() -> None:
    """Have vispy delete no shader program where Mesa may draw in software; to be called once the canvas is there."""
    if not _mapped(_DRIVERS):
        return
    from vispy.gloo.glir import GlirProgram

    GlirProgram.delete = _keep


def _keep(program: object) -> None:
    """Instead of ``GlirProgram.delete``."""


def _mapped(names: tuple[str, ...]) -> bool:
    """Whether a library of one of these names is loaded in this process; False where the system does not tell."""
    if sys.platform != "linux":
        return False
    try:
        mapped = Path("/proc/self/maps").read_text("ascii", errors="replace")
    except OSError:
        return False
    return any(name in mapped for name in names)
