"""VGG16's weights: from torchvision's cache, from a model of this project, or a line that says what is missing."""

from __future__ import annotations

import hashlib
import io
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import VGG16_Weights, vgg16

from napari_bloodcells.core.errors import BundleError, Cancelled, WeightsError
from napari_bloodcells.core.models import build
from napari_bloodcells.core.models import vgg16 as ours
from napari_bloodcells.core.progress import Silent

FILE = VGG16_Weights.IMAGENET1K_FEATURES.url.rsplit("/", 1)[-1]


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def write_cache(folder: Path) -> dict[str, torch.Tensor]:
    """A file with torchvision's names and shapes; each tensor repeats one number, so that it takes little room."""
    with torch.device("meta"):
        names = vgg16(weights=None).state_dict()
    state = {key: torch.full((1,), i / 1000.0).expand(t.shape) for i, (key, t) in enumerate(names.items())}
    state |= {key: t * float("nan") for key, t in list(state.items())[-2:]}  # the real file has no classifier
    torch.save(state, folder / FILE)
    return state


def test_imagenet_weights_come_from_torchvisions_cache(torch_home: Path) -> None:
    state = write_cache(torch_home)
    net = build("vgg16", 5, weights="imagenet")
    for key, tensor in net.convolutions.state_dict().items():  # type: ignore[union-attr]
        assert torch.equal(tensor, state[f"features.{key}"]), key
    assert len(net.convolutions.state_dict()) == 26  # type: ignore[union-attr]


def test_the_normalization_is_that_of_the_weights() -> None:
    transform = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    assert tuple(transform.mean) == ours.MEAN
    assert tuple(transform.std) == pytest.approx(ours.STD)
    from napari_bloodcells.core.training.recipe import load_recipe

    for name in ("vgg16", "vgg16-finetune"):
        assert load_recipe(name).input.mean == pytest.approx(ours.MEAN)
        assert load_recipe(name).input.std == pytest.approx(ours.STD)


def test_without_network_and_cache_one_line_says_what_to_put_where(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(WeightsError) as caught:
        build("vgg16", 5, weights="imagenet")
    said = str(caught.value)
    assert VGG16_Weights.IMAGENET1K_FEATURES.url in said
    assert str(torch_home / FILE) in said
    assert "--weights none" in said
    assert "\n" not in said


class Told(Silent):
    """Keeps what it is told; stops after ``limit`` steps."""

    def __init__(self, limit: int = 99) -> None:
        self.limit, self.tasks, self.steps = limit, [], 0

    def start(self, task: str, total: int | None) -> None:
        self.tasks.append(task)

    def advance(self, task: str, n: int = 1, **values: float) -> None:
        self.steps += n

    def cancelled(self) -> bool:
        return self.steps >= self.limit


def test_a_download_is_told_before_it_begins_checked_and_can_be_stopped(
    torch_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"weights" * 500_000
    monkeypatch.setattr(ours, "urlopen", lambda url, timeout: io.BytesIO(content))
    told = Told(limit=0)
    with pytest.raises(Cancelled):
        ours.fetch_imagenet(told)
    assert told.tasks == ["fetching VGG16's ImageNet weights (528 MB) from download.pytorch.org"]
    with pytest.raises(Cancelled):
        ours.fetch_imagenet(Told(limit=2))
    with pytest.raises(WeightsError, match="not the published file"):
        ours.fetch_imagenet(Told())
    assert list(torch_home.iterdir()) == []
    place = torch_home / f"vgg16-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(ours, "_imagenet", lambda: ("https://example.org/x", place))
    told = Told()
    ours.fetch_imagenet(told)
    assert (place.read_bytes(), told.steps) == (content, 4)
    ours.fetch_imagenet(told)  # it is here: nothing is told or fetched
    assert len(told.tasks) == 1


def test_a_damaged_cache_is_named(torch_home: Path) -> None:
    (torch_home / FILE).write_bytes(b"not weights")
    with pytest.raises(WeightsError, match="damaged"):
        build("vgg16", 5, weights="imagenet")


def test_a_pickle_in_the_cache_runs_nothing(torch_home: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):  # type: ignore[no-untyped-def]
            return (Path.touch, (tmp_path / "owned",))

    torch.save({"features.0.weight": Evil()}, torch_home / FILE)
    with pytest.raises(WeightsError):
        build("vgg16", 5, weights="imagenet")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(("mode", "learning"), [("frozen", 2), ("finetune", 28)])
def test_frozen_trains_the_head_alone(mode: str, learning: int) -> None:
    net = build("vgg16", 5, mode=mode)
    names = [name for name, p in net.named_parameters() if p.requires_grad]
    assert len(names) == learning
    assert {"head.weight", "head.bias"} <= set(names)


def test_weights_of_this_project_start_a_new_one(tmp_path: Path) -> None:
    pretrained = build("vgg16", 3, mode="finetune")
    (tmp_path / "bundle").mkdir()
    save_file({k: v.half() for k, v in pretrained.state_dict().items()}, tmp_path / "bundle" / "model.safetensors")
    net = build("vgg16", 5, weights=str(tmp_path / "bundle"))
    assert torch.equal(net.convolutions[0].weight, pretrained.convolutions[0].weight.half().float())  # type: ignore[union-attr]
    assert net.head.out_features == 5


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("nowhere", None, WeightsError, "takes imagenet, none"),
        ("vgg16.pth", b"x", WeightsError, "takes imagenet, none"),
        ("broken.safetensors", b"xxxxxxxxxxxx", BundleError, "not a safetensors file"),
    ],
)
def test_weights_that_are_none_are_refused(
    tmp_path: Path, name: str, content: bytes | None, error: type[Exception], words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        build("vgg16", 5, weights=str(tmp_path / name))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(build("cnn3", 5).state_dict(), tmp_path / "cnn3.safetensors")
    with pytest.raises(WeightsError, match="is missing or of another shape"):
        build("vgg16", 5, weights=str(tmp_path / "cnn3.safetensors"))


def test_the_file_name_in_the_cache_carries_the_hash_that_torchvision_checks() -> None:
    prefix = FILE.rsplit("-", 1)[-1].removesuffix(".pth")
    assert len(prefix) == 8
    assert set(prefix) <= set(hashlib.sha256().hexdigest()) | set("0123456789abcdef")
