"""Checkpoints of a training: a tree of tensors and plain values in one safetensors file, replaced whole or not at all.

Tensors stand under their path in the tree (``optimizer/state/0/exp_avg``), everything else as JSON in the header; no
pickle, so a checkpoint from elsewhere can run nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from napari_bloodcells.core.errors import BundleError
from napari_bloodcells.core.files import display_name, read_regular, write_atomic

_MAX_BYTES = 16 * 2**30
_TENSOR, _INT_KEYS = "__tensor__", "__int_keys__"


def save_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write ``tree`` (dicts with text or int keys, lists, tensors, numbers, texts, None) to ``path``."""
    tensors: dict[str, Tensor] = {}

    def pack(value: Any, where: str) -> Any:
        if isinstance(value, Tensor):
            tensors[where] = value.detach().to("cpu", copy=True).contiguous()
            return {_TENSOR: where}
        if isinstance(value, dict):
            packed = {str(k): pack(v, f"{where}/{k}") for k, v in value.items()}
            return {_INT_KEYS: packed} if value and all(isinstance(k, int) for k in value) else packed
        if isinstance(value, list | tuple):
            return [pack(v, f"{where}/{i}") for i, v in enumerate(value)]
        return value

    text = json.dumps(pack(tree, ""))
    write_atomic(path, save(tensors, {"tree": text}), overwrite=True)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree that ``save_checkpoint`` wrote; lists and tuples come back as lists.

    Raises
    ------
    BundleError
        If the file is damaged or is no checkpoint.
    """
    data = read_regular(path, _MAX_BYTES, BundleError)
    try:
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        tree = json.loads(header["__metadata__"]["tree"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(
            f"{display_name(path)}: no checkpoint that can be read ({error}); start anew without it."
        ) from None

    def unpack(value: Any) -> Any:
        if isinstance(value, dict):
            if _TENSOR in value:
                return tensors[value[_TENSOR]]
            if _INT_KEYS in value:
                return {int(k): unpack(v) for k, v in value[_INT_KEYS].items()}
            return {k: unpack(v) for k, v in value.items()}
        return [unpack(v) for v in value] if isinstance(value, list) else value

    found: dict[str, Any] = unpack(tree)
    return found
