"""Which processor computes, in which precision, and why, in words.

``auto`` takes CUDA, else Apple's MPS, else the CPU.  bfloat16 is used where the processor multiplies it natively (CUDA
since Ampere, CPUs with AMX or AVX512-BF16) and float32 elsewhere; on a CPU without it cells are found in 8-bit whole
numbers (``localize/eightbit.py``).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_bloodcells.core.errors import GO_ON, OutageError, UsageError

if TYPE_CHECKING:
    import torch

CHOICES = ("auto", "cpu", "cuda", "mps")
_GPU_FILES = ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd")
"""What a GPU that torch may use shows in Linux's ``/dev``: NVIDIA's, its small boards', Windows's below, AMD's."""
_FAILED = re.compile(
    r"AcceleratorError|OutOfMemoryError|(CUDA|CUDA driver|cuDNN|HIP) error|CU[A-Z]+_STATUS_|MPS backend out of memory"
    r"|[Uu]nable to find (an engine|a valid cuDNN)|NVML_SUCCESS|no kernel image is available"
    r"|^The memory of \S+ is too small"
)
"""What stands in errors where the device failed, not what was asked of it: torch's, and the one of ``model.py``."""


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def surely_cpu(name: str = "auto", devices: Path = Path("/dev")) -> bool:
    """Whether ``pick_device(name)`` is the CPU, as far as can be told without importing torch; False where it cannot.

    >>> surely_cpu("cpu"), surely_cpu("cuda")
    (True, False)
    """
    if name != "auto" or sys.platform != "linux":
        return name == "cpu"
    return not any(any(devices.glob(pattern)) for pattern in _GPU_FILES)


def pick_device(name: str = "auto") -> torch.device:
    """The torch device of that name; ``auto`` takes the fastest that is there.

    Raises
    ------
    UsageError
        For an unknown device, or one that this machine or this torch does not have.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"{name!r} is no device; choose one of {', '.join(CHOICES)}.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"no CUDA device: {_why_no_cuda()}; use --device cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{name}: this machine has {torch.cuda.device_count()} GPU(s), numbered from 0.")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no MPS device: it needs an Apple processor and a torch built for it; use --device cpu.")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"{name!r} is no device that is supported; choose one of {', '.join(CHOICES)}.")
    return device


def fast_bf16(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 natively, so that it is faster than float32."""
    import torch

    if device.type == "cuda":
        return bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= 8  # since Ampere
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # older torch
            return bool(torch.cpu._is_avx512_bf16_supported())
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return False


def fast_int8(device: torch.device) -> bool:
    """Whether ``device`` is best given 8-bit whole numbers: an x86 CPU with AVX2 that does not multiply bfloat16."""
    import torch

    if device.type != "cpu" or fast_bf16(device) or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # older torch
        return bool(torch.cpu._is_avx2_supported())
    return bool(torch.cpu.get_capabilities().get("avx2"))


def exact_float32(device: torch.device) -> None:
    """Have CUDA convolve float32 as the CPU does: cuDNN else rounds the factors to 10 bits (TF32)."""
    import torch

    if device.type != "cuda":
        return
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    newer: tuple[Any, ...] = getattr(torch.backends.cudnn, "conv", None), torch.backends.cuda.matmul
    for what in newer:
        if getattr(what, "fp32_precision", "ieee") == "tf32":  # said in torch's newer way, which then goes first
            what.fp32_precision = "ieee"


@contextmanager
def repeatable(device: torch.device) -> Iterator[None]:
    """Have CUDA take algorithms that give the same bits every time, and convolve float32 exactly, within the block.

    Else cuDNN may sum gradients in the order in which they happen to come.
    """
    import torch

    exact_float32(device)
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


def memory_ran_out(error: Exception) -> bool:
    """Whether a device's memory was too small: torch has an error of its own for that, but not on MPS.

    >>> memory_ran_out(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
    True
    """
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "backend out of memory" in str(error)


def release_memory(device: torch.device) -> None:
    """Give back what torch holds of the memory of ``device`` and does not use."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def outage(error: Exception | str, device: torch.device) -> OutageError | None:
    """What ends a run where ``device`` failed or its memory ran out, not what was computed; None for other errors.

    >>> import torch
    >>> print(outage(RuntimeError("CUDA error: unspecified launch failure"), torch.device("cuda:1")))
    cuda:1 failed (CUDA error: unspecified launch failure): with an output folder, --resume goes on from what was \
finished; add --device cpu if it fails again.
    >>> outage(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), torch.device("cpu")) is None
    True
    """
    if not isinstance(error, (str, RuntimeError)):
        return None
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    if not _FAILED.search(text):
        return None
    first = " ".join(str(error).partition("\n")[0].split())  # torch adds advice for programmers
    first = first if len(first) <= 120 else f"{first[:117]}..."
    if re.search("out ?of ?memory|too small", text, re.IGNORECASE):
        return OutageError(
            f"{device} has too little memory ({first}): end what else uses it; {GO_ON}, or --device cpu."
        )
    return OutageError(f"{device} failed ({first}): {GO_ON}; add --device cpu if it fails again.")


def describe_device(device: torch.device) -> str:
    """One line on what computes and why, such as ``CPU, 2 threads, bfloat16: torch sees no GPU because ...``."""
    import torch

    precision = "bfloat16" if fast_bf16(device) else "float32, cells found in int8" if fast_int8(device) else "float32"
    if device.type == "cuda":
        found = torch.cuda.get_device_properties(device)
        return f"GPU: {found.name}, {found.total_memory / 2**30:.0f} GiB, {precision}"
    if device.type == "mps":
        return f"GPU: Apple MPS, {precision}"
    return f"CPU, {torch.get_num_threads()} threads, {precision}: torch sees no GPU because {_why_no_cuda()}"


def _why_no_cuda() -> str:
    import torch

    if torch.cuda.is_available():
        return "the CPU was asked for"
    if torch.version.cuda is None:
        return "this torch is built without CUDA"
    return "no NVIDIA GPU with a working driver is found"
