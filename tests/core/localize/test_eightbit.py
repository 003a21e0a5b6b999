"""The localizer in whole numbers: as the float32 one but for rounding, and the same bits in any company."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_bloodcells.core import devices
from napari_bloodcells.core.datasets.base import FieldTruth
from napari_bloodcells.core.errors import BundleError
from napari_bloodcells.core.find import find_images
from napari_bloodcells.core.localize import maps
from napari_bloodcells.core.localize.calibrate_find import measure_ranges
from napari_bloodcells.core.localize.collect import TruthField
from napari_bloodcells.core.localize.eightbit import (
    EightBitConv,
    Range,
    eight_bit,
    eight_bit_convolutions,
    recorded_ranges,
)
from napari_bloodcells.core.localize.learned import LearnedLocalizer
from napari_bloodcells.core.localize.net import CellNet, NetSettings, plain_weights
from napari_bloodcells.core.localize.store import METADATA, LocalizerInfo, read_localizer, save_localizer
from napari_bloodcells.core.progress import Silent
from napari_bloodcells.synthetic import SmearSettings, draw_smear, write_folder

pytestmark = pytest.mark.skipif(
    not torch.cpu.get_capabilities().get("avx2"), reason="8-bit convolutions need an x86 processor with AVX2"
)
SMALL = NetSettings((16, 16, 16, 16), (1, 1, 1), 16)
INFO = LocalizerInfo(name="small", channels=SMALL.channels, blocks=SMALL.blocks, head=SMALL.head)


@pytest.fixture
def whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """This processor as one without bfloat16."""
    monkeypatch.setattr(devices, "fast_bf16", lambda device: False)
    monkeypatch.setattr(maps, "fast_bf16", lambda device: False)


@pytest.mark.parametrize(
    ("size", "stride", "low"), [(3, 1, 0.0), (3, 2, 0.0), (1, 1, 0.0), (3, 1, -1.0), (3, 2, -1.0), (1, 1, -3.0)]
)
def test_a_convolution_is_that_of_float32_but_for_rounding(size: int, stride: int, low: float) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 48, size, stride, size // 2).requires_grad_(False)
    x = (torch.rand(2, 32, 12, 20) * (1 - low) + low).contiguous(memory_format=torch.channels_last)
    off = EightBitConv(conv, Range(low, (1.0,) * 32))(x) - conv(x)
    assert off.abs().max() < 0.05 * conv(x).abs().max()
    assert off.pow(2).mean().sqrt() < 0.01 * conv(x).pow(2).mean().sqrt() * (1 - low)


def test_channels_of_uneven_range_keep_their_steps() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(32, 16, 3, padding=1, bias=False).requires_grad_(False)
    high = torch.logspace(-2, 1, 32)
    conv.weight.div_(high.view(1, -1, 1, 1))  # so that each channel says as much
    x = (torch.rand(1, 32, 12, 12) * high.view(1, -1, 1, 1)).contiguous(memory_format=torch.channels_last)
    off = EightBitConv(conv, Range(0.0, tuple(high.tolist())))(x) - conv(x)
    assert off.pow(2).mean().sqrt() < 0.02 * conv(x).pow(2).mean().sqrt()


def test_what_is_out_of_range_is_cut_off_and_does_not_wrap() -> None:
    conv = nn.Conv2d(16, 16, 1, bias=False).requires_grad_(False)
    conv.weight.copy_(torch.eye(16)[:, :, None, None])
    x = torch.linspace(-5, 50, 56).repeat(16, 1)[None, :, None].contiguous(memory_format=torch.channels_last)
    found = EightBitConv(conv, Range(0.0, (8.0,) * 16))(x)[0, 0, 0]
    torch.testing.assert_close(found, x[0, 0, 0].clamp(0, 8), atol=0.04, rtol=0)


def test_the_largest_sums_do_not_overflow() -> None:
    conv = nn.Conv2d(512, 16, 3, padding=1, bias=False).requires_grad_(False)
    conv.weight.fill_(1.0)
    x = torch.ones(1, 512, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(EightBitConv(conv, Range(0.0, (1.0,) * 512))(x), conv(x), rtol=1e-4, atol=0)


def test_all_but_the_first_two_and_the_last_convolution_may_be_in_whole_numbers() -> None:
    net = plain_weights(CellNet(SMALL))
    names = set(eight_bit_convolutions(net))
    assert {"stem", "down4", "output"}.isdisjoint(names)
    with recorded_ranges(net) as ranges, torch.inference_mode():
        net(torch.zeros(1, 3, 64, 64))
    assert set(ranges) == names
    replaced = eight_bit(net, ranges)
    assert {n for n, m in replaced.named_modules() if isinstance(m, EightBitConv)} == names
    assert replaced.stem.weight is net.stem.weight
    assert all(isinstance(net.get_submodule(name), nn.Conv2d) for name in names)


def test_the_shipped_localizer_sees_the_same_and_the_same_bits_alone_and_in_company(whole_numbers: None) -> None:
    info, net = read_localizer()
    assert set(info.eight_bit) == set(eight_bit_convolutions(net))
    whole = LearnedLocalizer(info, net)
    exact = LearnedLocalizer(info.model_copy(update={"eight_bit": {}}), net)
    assert any(isinstance(m, EightBitConv) for m in whole.net.modules())
    assert not any(isinstance(m, EightBitConv) for m in exact.net.modules())
    images = [draw_smear(seed, SmearSettings(cells=2)).image for seed in range(5)]
    for localizer in (whole, exact):
        for alone, together in zip(map(localizer.find, images), localizer.find_many(images), strict=True):
            np.testing.assert_array_equal(alone.wbc.xyxy, together.wbc.xyxy)
            np.testing.assert_array_equal(alone.rbc.scores, together.rbc.scores)
            assert alone.um_per_pixel == together.um_per_pixel
    for image in images:
        one, other = whole.find(image), exact.find(image)
        assert len(one.wbc) == len(other.wbc)
        left_to_right = [field.wbc.xyxy[np.argsort(field.wbc.xyxy[:, 0])] for field in (one, other)]
        np.testing.assert_allclose(*left_to_right, atol=10)  # less than two pixels of the working image
        assert one.um_per_pixel == pytest.approx(other.um_per_pixel, rel=0.03)


def test_a_processor_that_multiplies_bfloat16_is_given_no_whole_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "fast_bf16", lambda device: True)
    info, net = read_localizer()
    assert not any(isinstance(m, EightBitConv) for m in LearnedLocalizer(info, net).net.modules())


def test_ranges_are_measured_on_training_fields(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_folder(tmp_path, 2, seed=1, settings=SmearSettings(width=200, height=160, um_per_pixel=0.25))
    paths = find_images([tmp_path])
    truths = [FieldTruth(p, draw_smear(0).boxes, p.stem, None, frozenset({"WBC"})) for p in paths]
    items = [TruthField(truth, "drawn", "train") for truth in truths]
    net = CellNet(SMALL).eval()
    info = measure_ranges(net, INFO, items, Silent())
    assert set(info.eight_bit) == set(eight_bit_convolutions(net))
    assert all(found.low <= 0 < max(found.high) for found in info.eight_bit.values())
    assert measure_ranges(net, INFO, [], Silent()).eight_bit == {}


def test_ranges_of_another_network_are_refused(tmp_path: Path) -> None:
    folder = save_localizer(tmp_path / "small", CellNet(SMALL), INFO)
    text = json.loads((folder / METADATA).read_text())
    for name, channels in (("stage4.7.conv", 16), ("down8", 17)):
        (folder / METADATA).write_text(json.dumps(text | {"eight_bit": {name: {"low": 0, "high": [1] * channels}}}))
        with pytest.raises(BundleError, match=f"8-bit ranges of '{name}' do not fit"):
            read_localizer(folder)
