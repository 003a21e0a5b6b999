"""Which processor computes: what ``auto`` takes, what is refused in words, and what the line about it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from napari_bloodcells.core.devices import (
    describe_device,
    exact_float32,
    fast_bf16,
    fast_int8,
    outage,
    pick_device,
    repeatable,
    surely_cpu,
)
from napari_bloodcells.core.errors import UsageError


def machine(monkeypatch: pytest.MonkeyPatch, *, cuda: int = 0, mps: bool = False, bf16: bool = True) -> None:
    """Have torch see that many NVIDIA GPUs, and Apple's."""
    gpu = SimpleNamespace(name="Test GPU", total_memory=139 * 2**30, major=8 if bf16 else 7)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("there", "picked"),
    [({}, "cpu"), ({"mps": True}, "mps"), ({"cuda": 1}, "cuda"), ({"cuda": 1, "mps": True}, "cuda")],
)
def test_auto_takes_the_fastest_there_is(monkeypatch: pytest.MonkeyPatch, there: dict[str, Any], picked: str) -> None:
    machine(monkeypatch, **there)
    assert pick_device("auto").type == picked
    assert pick_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("there", "name", "words"),
    [
        ({}, "cuda", "no CUDA device: this torch is built without CUDA; use --device cpu"),
        ({"cuda": 2}, "cuda:2", r"cuda:2: this machine has 2 GPU\(s\), numbered from 0"),
        ({}, "mps", "no MPS device: it needs an Apple processor"),
        ({"cuda": 1}, "meta", "'meta' is no device that is supported; choose one of auto, cpu, cuda, mps"),
        ({}, "gpu", "'gpu' is no device; choose one of auto, cpu, cuda, mps"),
    ],
)
def test_what_is_not_there_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, Any], name: str, words: str
) -> None:
    machine(monkeypatch, **there)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(UsageError, match=words):
        pick_device(name)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows its devices as files")
@pytest.mark.parametrize("file", ["nvidia0", "nvhost-gpu", "nvmap", "dxg", "kfd"])
def test_without_torch_it_is_told_that_there_is_no_gpu(tmp_path: Path, file: str) -> None:
    (tmp_path / "null").touch()
    assert surely_cpu("auto", tmp_path)
    (tmp_path / file).touch()
    assert not surely_cpu("auto", tmp_path)
    assert surely_cpu("cpu", tmp_path)
    assert not surely_cpu("cuda", tmp_path)


def test_a_torch_with_cuda_but_no_gpu_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(UsageError, match="no NVIDIA GPU with a working driver is found"):
        pick_device("cuda")


def test_the_last_gpu_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=2)
    assert pick_device("cuda:1").index == 1


@pytest.mark.parametrize(
    ("found", "fast"), [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"avx2": True}, False)]
)
def test_bfloat16_is_taken_where_a_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert fast_bf16(torch.device("cpu")) is fast


@pytest.mark.parametrize("fast", [True, False])
def test_a_torch_without_a_list_of_capabilities_is_asked_otherwise(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: fast, raising=False)
    assert fast_bf16(torch.device("cpu")) is fast


@pytest.mark.parametrize(
    ("found", "fast"), [({"avx2": True}, True), ({"avx2": True, "avx512_bf16": True}, False), ({"neon": True}, False)]
)
def test_whole_numbers_are_taken_where_bfloat16_is_slow(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert fast_int8(torch.device("cpu")) is fast
    assert fast_int8(torch.device("cuda")) is False
    assert ("cells found in int8" in describe_device(torch.device("cpu"))) is fast


def test_the_line_says_what_computes_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, cuda=1)
    assert describe_device(torch.device("cuda")) == "GPU: Test GPU, 139 GiB, bfloat16"
    assert describe_device(torch.device("cpu")).endswith("torch sees no GPU because the CPU was asked for")
    machine(monkeypatch, cuda=1, bf16=False)
    assert describe_device(torch.device("cuda")) == "GPU: Test GPU, 139 GiB, float32"
    assert describe_device(torch.device("mps")) == "GPU: Apple MPS, float32"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.AcceleratorError("CUDA error: an illegal memory access\nadvice"),
            r"^cuda:1 failed \(CUDA error: an illegal ",
        ),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), "^cuda:1 failed"),
        (torch.OutOfMemoryError("CUDA out of memory."), "^cuda:1 has too little memory"),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "^cuda:1 failed"),
        (RuntimeError("NVML_SUCCESS == r INTERNAL ASSERT FAILED at driver_api.cpp"), "^cuda:1 failed"),
        (RuntimeError("MPS backend out of memory"), "^cuda:1 has too little memory"),
        ("The memory of cuda:1 is too small for a single cell: end", "^cuda:1 has too little memory"),
        ("a.svs: could not be counted (OutOfMemoryError: CUDA out of memory).", r"memory \(a\.svs: could"),
    ],
)
def test_a_failure_of_the_device_is_told_from_one_of_what_it_computed(error: Exception | str, words: str) -> None:
    told = str(outage(error, torch.device("cuda:1")))
    assert re.search(words, told)
    assert "--resume" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("shapes cannot be multiplied"),
        ValueError("CUDA error"),
        MemoryError("out of memory"),
        "a.svs: is too large for the memory of this machine.",
    ],
)
def test_other_errors_are_of_the_image(error: Exception | str) -> None:
    assert outage(error, torch.device("cuda:1")) is None


@pytest.mark.parametrize(("name", "allowed"), [("cpu", True), ("cuda", False)])
def test_on_a_gpu_float32_is_not_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch, name: str, allowed: bool) -> None:
    cudnn, matmul = SimpleNamespace(allow_tf32=True), SimpleNamespace(allow_tf32=True)
    monkeypatch.setattr(torch.backends, "cudnn", cudnn)
    monkeypatch.setattr(torch.backends.cuda, "matmul", matmul)
    exact_float32(torch.device(name))
    assert cudnn.allow_tf32 == matmul.allow_tf32 == allowed


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch knows one way of saying it only")
def test_nor_where_the_program_asked_for_tf32_in_the_newer_way() -> None:
    script = """
import torch
from napari_bloodcells.core.devices import exact_float32
torch.backends.fp32_precision = "tf32"
assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "tf32"
exact_float32(torch.device("cuda"))
print(torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ieee", "ieee"]


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_repeatable_algorithms_are_taken_on_a_gpu_and_given_back(name: str) -> None:
    before = torch.backends.cudnn.deterministic
    with repeatable(torch.device(name)):
        assert torch.backends.cudnn.deterministic == (before or name == "cuda")
    assert torch.backends.cudnn.deterministic == before
