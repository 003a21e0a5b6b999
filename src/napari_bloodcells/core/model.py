"""A loaded model: crops in, probabilities and distances out, the same whatever the batch.

Crops go through the network in micro-batches of one fixed size, the last one padded, because a matrix product may sum
in another order when its shape changes; so a cell's probabilities do not depend on its neighbors.  The body runs in
bfloat16 where the processor multiplies it natively, head and softmax in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_bloodcells.core.devices import exact_float32, fast_bf16, memory_ran_out, release_memory
from napari_bloodcells.core.errors import BloodcellsError, UsageError
from napari_bloodcells.core.featurespace import FeatureSpace
from napari_bloodcells.core.inputs import to_input
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.schema import BundleInfo

MICRO_BATCH = {"cpu": 16, "cuda": 64, "mps": 64}
MICRO_BATCH_FLOAT32 = 8
"""On a CPU without bfloat16: as fast a cell as 16, and fewer are computed in vain to fill the last one."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of N cells.

    Attributes
    ----------
    probabilities : (N, C) float32
        One row a cell, adding up to 1, in the order of ``BundleInfo.class_names``; temperature applied.
    distance : (N,) float32
        From the training cells, about 1 for cells like those (``featurespace.py``); 0 where the bundle has no space.
    """

    probabilities: NDArray[np.float32]
    distance: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.probabilities)


class Model:
    """A network with its metadata, on a device, ready to classify.

    Attributes
    ----------
    info : BundleInfo
    module : Classifier
    space : FeatureSpace or None
    device : torch.device
    dtype : torch.dtype
        In which the body computes, and to which it is rounded.
    unrounded : Classifier
        The network as it was given, to save another like it, where ``unrounded`` asked for that; else ``module``.
    micro_batch : int
        Crops that go through the network at once; halved when the memory of the device runs out.
    """

    def __init__(
        self,
        info: BundleInfo,
        module: Classifier,
        space: FeatureSpace | None,
        device: torch.device | str = "cpu",
        *,
        unrounded: bool = False,
    ) -> None:
        self.info = info
        self.device = torch.device(device)
        exact_float32(self.device)
        self.dtype = torch.bfloat16 if fast_bf16(self.device) else torch.float32
        exact = self.device.type == "cpu" and self.dtype == torch.float32
        self.micro_batch = MICRO_BATCH_FLOAT32 if exact else MICRO_BATCH[self.device.type]
        self.module = module.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.unrounded = self.module
        if unrounded and self.dtype != torch.float32:
            self.unrounded = copy.deepcopy(self.module)
        self.module.body.to(self.dtype)
        self.space = None if space is None else space.to(self.device)

    def predict(self, crops: NDArray[np.uint8] | Tensor) -> Prediction:
        """Classify crops.

        Parameters
        ----------
        crops : (N, 3, S, S) uint8, RGB, cut as ``info.crop`` says

        Returns
        -------
        Prediction

        Raises
        ------
        UsageError
            If ``crops`` are not that.
        BloodcellsError
            If the memory of the device is too small even for one crop at a time.
        """
        with torch.inference_mode():
            parts = list(self._batches(_checked(crops)))
            logits = torch.cat([part[1] for part in parts]) if parts else self._nothing(len(self.info.class_names))
            distance = torch.cat([part[2] for part in parts]) if parts else self._nothing(1)[:, 0]
            shares = (logits / self.info.temperature).softmax(1)
        return Prediction(shares[: len(crops)].cpu().numpy(), distance[: len(crops)].cpu().numpy())

    def features_and_logits(self, crops: NDArray[np.uint8] | Tensor) -> tuple[Tensor, Tensor]:
        """The input of the last layer and its output, before temperature and softmax, for fitting and calibration.

        (N, 3, S, S) uint8 crops -> (N, D) and (N, C) float32 on the CPU.
        """
        with torch.inference_mode():
            parts = list(self._batches(_checked(crops)))
            features = torch.cat([part[0] for part in parts]) if parts else self._nothing(self.module.head.in_features)
            logits = torch.cat([part[1] for part in parts]) if parts else self._nothing(len(self.info.class_names))
        return features[: len(crops)].cpu(), logits[: len(crops)].cpu()

    def _batches(self, crops: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Features, logits and distances of one micro-batch after the other, the last one padded with black crops."""
        start = 0
        while start < len(crops):
            part = crops[start : start + self.micro_batch]
            try:
                yield self._forward(part)
            except RuntimeError as error:
                if not memory_ran_out(error):
                    raise
                if self.micro_batch == 1:
                    raise BloodcellsError(
                        f"The memory of {self.device} is too small for a single cell: end what else uses it, "
                        "or compute on the processor (--device cpu)."
                    ) from None
                self.micro_batch //= 2
                release_memory(self.device)
                continue
            start += len(part)

    def _forward(self, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, norm = len(part), self.info.normalization
        if n < self.micro_batch:
            part = torch.cat([part, part.new_zeros((self.micro_batch - n, *part.shape[1:]))])
        images = to_input(part.to(self.device), self.info.input_size, norm.mean, norm.std)
        features = self.module.features(images.to(self.dtype)).float()
        distance = features.new_zeros(len(features)) if self.space is None else self.space.distance(features)
        return features[:n], self.module.head(features)[:n], distance[:n]

    def _nothing(self, width: int) -> Tensor:
        return torch.zeros((0, width), device=self.device)


def _checked(crops: NDArray[np.uint8] | Tensor) -> Tensor:
    found = torch.from_numpy(np.ascontiguousarray(crops)) if isinstance(crops, np.ndarray) else crops
    if found.ndim != 4 or found.shape[1] != 3 or found.dtype != torch.uint8:
        raise UsageError(f"crops must be (N, 3, S, S) uint8, not {tuple(found.shape)} {found.dtype}.")
    return found
