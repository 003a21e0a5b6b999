"""``vgg16``: torchvision's VGG16 as the transfer-learning studies used it: its convolutions, flattened, and a new head.

``mode="frozen"`` trains the head alone, ``"finetune"`` everything.  The studies used Keras's VGG16, whose nearest in
torchvision is ``VGG16_Weights.IMAGENET1K_FEATURES`` with the normalization that belongs to it; the weights come through
torchvision's own API and cache.  torchvision is imported only when this network is built (it takes 1.1 s).
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from torch import Tensor, nn

from napari_bloodcells.core.errors import BundleError, UsageError, WeightsError
from napari_bloodcells.core.models.architecture import Architecture
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.progress import Progress, check_cancelled

MODES = ("frozen", "finetune")
IMAGENET_MB = 528
_MEGABYTE = 1_000_000

#: Mean and standard deviation of ``IMAGENET1K_FEATURES``, for images from 0 to 1 (its own transform subtracts the mean
#: and keeps the range 0 to 255).
MEAN = (0.48235, 0.45882, 0.40784)
STD = (1 / 255, 1 / 255, 1 / 255)


class Vgg16(Classifier):
    """The convolutions of VGG16, an average pool to 7x7 (nothing to do at 224 pixels), flattened, and a linear head."""

    def __init__(self, n_classes: int, mode: str, dropout: float) -> None:
        from torchvision.models import vgg16

        net = vgg16(weights=None, num_classes=2, init_weights=False)
        super().__init__(
            nn.Sequential(net.features, net.avgpool, nn.Flatten(), nn.Dropout(dropout)),
            nn.Linear(512 * 7 * 7, n_classes),
        )
        self.mode = mode
        for layer in self.modules():  # as torchvision does; kept apart because it would also fill its own huge head
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(layer.bias) if layer.bias is not None else None
        nn.init.normal_(self.head.weight, 0, 0.001)
        nn.init.zeros_(self.head.bias)
        for parameter in self.convolutions.parameters():
            parameter.requires_grad_(mode == "finetune")

    @property
    def convolutions(self) -> nn.Sequential:
        """torchvision's ``features``: thirteen convolutions with ReLU and five pools."""
        found: nn.Sequential = self.body[0]  # type: ignore[index]
        return found


def build(n_classes: int, *, mode: str = "frozen", weights: str = "none", dropout: float = 0.0) -> Classifier:
    """The network with pretrained convolutions.

    Parameters
    ----------
    n_classes : int
    mode : str
        ``frozen`` (only the head learns) or ``finetune``.
    weights : str
        ``imagenet`` (torchvision's ``IMAGENET1K_FEATURES``), ``none`` (random), or a path to safetensors or a bundle
        of a VGG16 that this project trained.
    dropout : float
        Before the head, 0 to 1.

    Raises
    ------
    WeightsError
        If the weights are not at hand.
    """
    if mode not in MODES:
        raise UsageError(f"vgg16 has no mode {mode!r}; choose {' or '.join(MODES)}.")
    net = Vgg16(n_classes, mode, dropout)
    if weights != "none":
        state = imagenet_convolutions() if weights == "imagenet" else project_convolutions(Path(weights))
        _fill(net.convolutions, state, weights)
    return net


def fetch_imagenet(progress: Progress) -> None:
    """Bring the ImageNet weights into torchvision's cache unless they are there; ``progress`` is told first what comes
    from where, then each megabyte, and can stop it: then nothing is kept.

    Raises
    ------
    WeightsError
        With no network, or when what came is not what it should be; says what to download to where.
    Cancelled
        When the user stops.
    """
    url, place = _imagenet()
    if place.exists():
        return
    task = f"fetching VGG16's ImageNet weights ({IMAGENET_MB} MB) from {urlsplit(url).netloc}"
    progress.start(task, IMAGENET_MB)
    check_cancelled(progress)
    part = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with urlopen(url, timeout=60) as answer:
            handle, part = tempfile.mkstemp(suffix=".part", dir=place.parent)
            with os.fdopen(handle, "wb") as file:
                while block := answer.read(_MEGABYTE):
                    check_cancelled(progress)
                    file.write(block)
                    digest.update(block)
                    progress.advance(task)
        if not digest.hexdigest().startswith(place.stem.rsplit("-", 1)[-1]):
            raise OSError("what came is not the published file")
        os.replace(part, place)
    except OSError as error:
        raise _not_here(error) from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)


def _imagenet() -> tuple[str, Path]:
    """Address of the weights, and their place in torchvision's cache."""
    import torch
    from torchvision.models import VGG16_Weights

    url = VGG16_Weights.IMAGENET1K_FEATURES.url
    return url, Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _not_here(error: OSError) -> WeightsError:
    url, place = _imagenet()
    return WeightsError(
        f"the ImageNet weights of VGG16 are not here and cannot be fetched ({error}): download {url} "
        f"({IMAGENET_MB} MB) and put it at {place}, or train from scratch with --weights none."
    )


def imagenet_convolutions() -> dict[str, Tensor]:
    """The convolutions of ``VGG16_Weights.IMAGENET1K_FEATURES`` from torchvision's cache, or downloaded by torchvision.

    Raises
    ------
    WeightsError
        With no network and no cache, or when the file is not what it should be; says what to download to where.
    """
    from torchvision.models import VGG16_Weights

    chosen = VGG16_Weights.IMAGENET1K_FEATURES
    place = _imagenet()[1]
    try:
        state: dict[str, Any] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise _not_here(error) from error
    except Exception as error:  # unpickling a damaged file raises nearly anything
        raise WeightsError(f"{place} is damaged or not VGG16's: delete it and download {chosen.url} again.") from error
    return {name.removeprefix("features."): t for name, t in state.items() if name.startswith("features.")}


def project_convolutions(path: Path) -> dict[str, Tensor]:
    """The convolutions of a VGG16 trained by this project: a bundle's folder or a ``.safetensors`` file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        raise WeightsError(
            f"{path} holds no VGG16 weights: --weights takes imagenet, none, a bundle's folder or a .safetensors file."
        )
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{file}: not a safetensors file that can be read ({error}).") from error
    return {name.removeprefix("body.0."): t for name, t in state.items() if name.startswith("body.0.")}


def _fill(convolutions: nn.Module, state: dict[str, Tensor], weights: str) -> None:
    own = convolutions.state_dict()
    for name, tensor in own.items():
        if name not in state or state[name].shape != tensor.shape:
            raise WeightsError(f"{weights}: no VGG16 weights ({name} is missing or of another shape).")
    convolutions.load_state_dict({name: state[name].to(tensor.dtype) for name, tensor in own.items()})


ARCHITECTURE = Architecture(
    name="vgg16",
    input_size=(224, 224),
    build=build,
    published="VGG16 (Simonyan & Zisserman 2014), frozen with a new head in the transfer studies (91.0 % on PBC)",
    options={"mode": "frozen", "weights": "none", "dropout": 0.0},
)
