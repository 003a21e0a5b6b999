"""The published networks: their parameter counts in Keras's way of counting, their shapes, their layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_bloodcells.core.errors import UsageError
from napari_bloodcells.core.models import architecture, architecture_names, architectures, build

# name, classes, parameters with running statistics, of these running statistics
PUBLISHED = [
    ("cnn6", 4, 219_460, 32),
    ("cnn4", 8, 205_656, 0),
    ("cnn5bn", 8, 629_224, 320),
    ("cnn4bn", 4, 5_018_084, 2 * (16 + 32 + 64 + 64)),
    ("cnn3", 5, 1_224_565, 0),
    ("vgg16", 8, 14_714_688 + 25_088 * 8 + 8, 0),
]

# name, features before the head, and the map sizes after each pool
SHAPES = [
    ("cnn6", 64, [99, 48, 23, 10, 4, 1]),
    ("cnn4", 80, [63, 30, 14, 6]),
    ("cnn5bn", 32, [63, 30, 14, 6, 2]),
    ("cnn3", 512, [25, 12, 6]),
]


@pytest.mark.parametrize(("name", "classes", "parameters", "running"), PUBLISHED)
def test_a_published_network_has_its_number_of_parameters(
    name: str, classes: int, parameters: int, running: int
) -> None:
    found = architecture(name)
    assert found.n_parameters(classes) == parameters
    module = found.skeleton(classes)
    statistics = sum(b.numel() for key, b in module.named_buffers() if "running" in key)
    assert statistics == running
    assert sum(p.numel() for p in module.parameters()) == parameters - running


@pytest.mark.parametrize("name", [p[0] for p in PUBLISHED if p[0] != "vgg16"])
def test_a_network_gives_one_logit_a_class(name: str) -> None:
    size = architecture(name).input_size
    module = build(name, 7).eval()
    logits = module(torch.rand(2, 3, *size))
    assert logits.shape == (2, 7)
    assert torch.isfinite(logits).all()
    assert torch.equal(module.head(module.features(torch.zeros(1, 3, *size))), module(torch.zeros(1, 3, *size)))


@pytest.mark.parametrize("name", architecture_names())
def test_a_network_takes_another_head_and_the_original_keeps_its_own(name: str) -> None:
    """Whatever its constructor asks for: ``calibrate`` makes its models so."""
    module = architecture(name).skeleton(3)
    old, width = module.head, module.head.in_features
    other = module.with_head(np.full((5, width), 0.5), np.arange(5.0))
    assert type(other) is type(module)
    assert (other.body, module.head) == (module.body, old)
    assert other.head.weight.shape == (5, width)
    assert other.head.bias.tolist() == [0, 1, 2, 3, 4]
    assert [key for key, _ in other.named_parameters()] == [key for key, _ in module.named_parameters()]
    assert len(other.l1_parameters()) == len(module.l1_parameters())


def test_vgg16_gives_one_logit_a_class_from_flattened_features() -> None:
    module = architecture("vgg16").skeleton(8)
    images = torch.empty(2, 3, 224, 224, device="meta")
    assert module.features(images).shape == (2, 25_088)
    assert module(images).shape == (2, 8)


@pytest.mark.parametrize(("name", "width", "maps"), SHAPES)
def test_the_maps_shrink_as_published(name: str, width: int, maps: list[int]) -> None:
    found = architecture(name)
    module = found.skeleton(4)
    sides: list[int] = []
    for layer in module.modules():
        if isinstance(layer, nn.MaxPool2d):
            layer.register_forward_hook(lambda _layer, _inputs, output: sides.append(output.shape[-1]))
    features = module.features(torch.empty(1, 3, *found.input_size, device="meta"))
    assert sides == maps
    assert features.shape == (1, width)


def test_cnn4bn_reads_whole_kaggle_images_higher_than_wide_is_refused() -> None:
    assert architecture("cnn4bn").input_size == (240, 320)
    with pytest.raises(RuntimeError):
        architecture("cnn4bn").skeleton(4)(torch.empty(1, 3, 320, 200, device="meta"))


@pytest.mark.parametrize(
    ("name", "rates"), [("cnn6", [0.2] * 5), ("cnn4", [0.2, 0.3, 0.4]), ("cnn5bn", [0.3]), ("cnn3", [0.35, 0.5])]
)
def test_dropout_stands_as_published(name: str, rates: list[float]) -> None:
    assert [layer.p for layer in architecture(name).skeleton(4).modules() if isinstance(layer, nn.Dropout)] == rates


def test_the_batch_norms_of_cnn5bn_stand_before_the_first_and_third_pool() -> None:
    kinds = [type(layer).__name__ for layer in architecture("cnn5bn").skeleton(8).body]
    pools = [i for i, kind in enumerate(kinds) if kind == "MaxPool2d"]
    assert [kinds[i - 1] for i in pools] == ["BatchNorm2d", "ReLU", "BatchNorm2d", "ReLU", "ReLU"]


def test_the_l1_penalty_of_cnn5bn_is_on_its_third_convolution_only() -> None:
    (weight,) = build("cnn5bn", 8).l1_parameters()
    assert weight.shape == (128, 256, 3, 3)
    assert build("cnn6", 4).l1_parameters() == ()


def test_the_padding_of_cnn3_is_keras_same() -> None:
    """Of a 4x4 kernel's three pixels of padding, Keras puts one before and two after."""
    module = build("cnn3", 5)
    pad, conv = module.body[0], module.body[1]  # type: ignore[index]
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0, 0, 0] = 1
        conv.bias.zero_()
    image = torch.rand(1, 3, 50, 50)
    out = conv(pad(image))
    assert out.shape[-2:] == (50, 50)
    assert torch.equal(out[0, 0, 1:, 1:], image[0, 0, :-1, :-1])


@pytest.mark.parametrize("name", ["cnn6", "cnn4bn", "cnn5bn"])
def test_group_norm_can_take_the_place_of_batch_norm(name: str) -> None:
    module = build(name, 4, norm="group")
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    assert any(isinstance(layer, nn.GroupNorm) for layer in module.modules())
    assert not list(module.buffers())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: build("cnn7", 4), "choose one of cnn3, cnn4"),
        (lambda: build("cnn6", 1), "two classes"),
        (lambda: build("cnn6", 4, norm="layer"), "batch, group or none"),
        (lambda: build("cnn4", 4, norm="group"), "no option norm"),
        (lambda: build("vgg16", 4, mode="half"), "frozen or finetune"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_choices(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match=words):
        call()


def test_the_registry_is_the_files_of_the_folder() -> None:
    assert {"cnn3", "cnn4", "cnn4bn", "cnn5bn", "cnn6", "vgg16"} <= set(architecture_names())
    assert [a.name for a in architectures()] == list(architecture_names())
    assert not {"layers", "classifier", "architecture"} & set(architecture_names())


def test_multiply_accumulates_are_counted() -> None:
    """cnn3 by hand: three 4x4 convolutions at 50, 25 and 12 pixels, then 2304 x 512 and 512 x 5."""
    by_hand = 16 * (50 * 50 * 3 * 16 + 25 * 25 * 16 * 32 + 12 * 12 * 32 * 64) + 2304 * 512 + 512 * 5
    assert architecture("cnn3").macs(5) == by_hand
