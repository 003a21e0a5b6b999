"""The registry of networks: one architecture, one file, found by its file's name.

A file of this folder that has an ``ARCHITECTURE`` is in the registry; nothing else has to be told.  The networks are
``Classifier``s: ``features(images) -> (N, D)`` and a linear ``head`` on them, which is what unidentified cells,
``calibrate`` and transfer learning need.  torch is imported when a network is first asked for, not with this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.models.architecture import Architecture

if TYPE_CHECKING:
    from napari_bloodcells.core.models.classifier import Classifier

__all__ = ["Architecture", "architecture", "architecture_names", "architectures", "build", "check_options"]

_HELPERS = {"architecture", "classifier", "layers"}


def architecture_names() -> tuple[str, ...]:
    """The names that ``build`` takes, in alphabetical order.

    >>> architecture_names()[:3]
    ('cnn3', 'cnn4', 'cnn4bn')
    """
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.name not in _HELPERS))


def architecture(name: str) -> Architecture:
    """The registered architecture of that name.

    Raises
    ------
    UsageError
        If there is none; the message lists those that there are.
    """
    if name not in architecture_names():
        raise UsageError(f"{name!r} is no architecture; choose one of {', '.join(architecture_names())}.")
    found: Architecture = import_module(f"{__name__}.{name}").ARCHITECTURE
    return found


def architectures() -> tuple[Architecture, ...]:
    """All registered architectures, in the order of their names."""
    return tuple(architecture(name) for name in architecture_names())


def build(arch: str, n_classes: int, **options: Any) -> Classifier:
    """A new network with random weights (``vgg16`` may take pretrained ones).

    Parameters
    ----------
    arch : str
        A name from ``architecture_names``.
    n_classes : int
        Number of classes, 2 or more.
    **options
        What the architecture lets one choose, such as ``norm="group"``.

    Raises
    ------
    UsageError
        For an unknown architecture or option.

    Examples
    --------
    >>> import torch
    >>> build("cnn3", 5)(torch.zeros(2, 3, 50, 50)).shape
    torch.Size([2, 5])
    """
    found = architecture(arch)
    if n_classes < 2:
        raise UsageError(f"a classifier needs two classes or more, not {n_classes}.")
    check_options(found, options)
    return found.build(n_classes, **{**found.options, **options})


def check_options(arch: Architecture, options: Iterable[str]) -> None:
    """Refuse (``UsageError``) the name of an option that the architecture does not have."""
    unknown = sorted(set(options) - set(arch.options))
    if unknown:
        known = ", ".join(arch.options) or "none"
        raise UsageError(f"{arch.name} has no option {', '.join(unknown)}; its options: {known}.")
