"""Bundles: what is written is read, what strangers send is checked, and predictions do not depend on the batch."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from napari_bloodcells.core.bundle import hash_tensors, installed_models, load_model, read_info, save_bundle
from napari_bloodcells.core.classes import load_scheme
from napari_bloodcells.core.crops import CropSpec
from napari_bloodcells.core.errors import BundleError, OutputError, UsageError
from napari_bloodcells.core.featurespace import fit_feature_space
from napari_bloodcells.core.models import build
from napari_bloodcells.core.models.classifier import Classifier
from napari_bloodcells.core.schema import BundleInfo, Metric, SchemeInfo, TrainingSource, scheme_info


@pytest.fixture(scope="module")
def module() -> Classifier:
    torch.manual_seed(0)
    net = build("cnn3", 5).eval()
    with torch.no_grad():
        net.head.weight *= 8
    return net


@pytest.fixture(scope="module")
def info() -> BundleInfo:
    return BundleInfo(
        name="tiny",
        arch="cnn3",
        scheme=scheme_info(load_scheme("wbc5")),
        crop=CropSpec(size=50),
        input_size=(50, 50),
        temperature=1.5,
        metrics=(Metric(name="accuracy", value=0.9, low=0.8, high=0.95, n=100),),
        confusion=tuple(tuple(int(i == j) for j in range(5)) for i in range(5)),
    )


@pytest.fixture
def folder(tmp_path: Path, module: Classifier, info: BundleInfo) -> Path:
    return save_bundle(tmp_path / "tiny", module, info)


def some_crops(n: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (n, 3, 50, 50), np.uint8)


def test_a_bundle_comes_back_as_it_was_written(folder: Path, module: Classifier, info: BundleInfo) -> None:
    model = load_model(folder, "cpu")
    assert model.info.model_copy(update={"sha256": ""}) == info
    written = load_file(folder / "model.safetensors")
    for name, tensor in module.state_dict().items():
        assert torch.equal(written[name], tensor)
    images = torch.from_numpy(some_crops(4))
    with torch.inference_mode():
        logits = module((images.float() / 255 - 0.5) / 0.25) / 1.5
    got = model.predict(images).probabilities
    np.testing.assert_allclose(got, logits.softmax(1).numpy(), atol=0.02)  # the body may run in bfloat16
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.sum(1), 1, atol=1e-5)


def test_a_single_file_is_the_same_model_as_a_folder(
    tmp_path: Path, folder: Path, module: Classifier, info: BundleInfo
) -> None:
    single = save_bundle(tmp_path / "one.safetensors", module, info)
    assert read_info(single) == read_info(folder)
    crops = some_crops(3)
    one, other = load_model(single, "cpu").predict(crops), load_model(folder, "cpu").predict(crops)
    assert np.array_equal(one.probabilities, other.probabilities)


def test_a_cells_probabilities_do_not_depend_on_its_neighbors(
    tmp_path: Path, module: Classifier, info: BundleInfo
) -> None:
    space = fit_feature_space(torch.randn(60, 512), torch.arange(60) % 5, 5)
    model = load_model(save_bundle(tmp_path / "m", module, info, space=space), "cpu")
    crops = some_crops(3 * model.micro_batch + 5)
    whole = model.predict(crops)
    for start, stop in [(0, 1), (7, 8), (3, 40), (50, 53)]:
        part = model.predict(crops[start:stop])
        assert np.array_equal(part.probabilities, whole.probabilities[start:stop])
        assert np.array_equal(part.distance, whole.distance[start:stop])
    backwards = model.predict(crops[::-1])
    assert np.array_equal(backwards.probabilities[::-1], whole.probabilities)


def test_no_crops_give_no_rows(folder: Path) -> None:
    found = load_model(folder, "cpu").predict(some_crops(0))
    assert found.probabilities.shape == (0, 5)
    assert found.distance.shape == (0,)


def test_distance_tells_the_strange_from_the_known(tmp_path: Path, module: Classifier, info: BundleInfo) -> None:
    crops = torch.from_numpy(some_crops(200))
    bare = load_model(save_bundle(tmp_path / "a", module, info), "cpu")
    features, _ = bare.features_and_logits(crops)
    space = fit_feature_space(features, torch.arange(200) % 5, 5)
    model = load_model(save_bundle(tmp_path / "b", module, info, space=space), "cpu")
    strange = torch.zeros(3, 3, 50, 50, dtype=torch.uint8)
    assert model.predict(strange).distance.min() > model.predict(crops).distance.max()
    assert bare.predict(strange).distance.tolist() == [0, 0, 0]


def test_how_microscopes_differ_is_kept_in_a_bundle(tmp_path: Path, module: Classifier, info: BundleInfo) -> None:
    features, labels = torch.randn(200, 512), torch.arange(200) % 5
    space = fit_feature_space(features, labels, 5, ["one"] * 100 + ["other"] * 100).in_units_of(1.5)
    found = load_model(save_bundle(tmp_path / "m", module, info, space=space), "cpu").space
    assert found is not None
    assert found.drift is not None
    assert space.drift is not None
    assert torch.equal(found.drift, space.drift)
    assert found.within == pytest.approx(space.within)


def test_half_precision_bundles_weigh_half_and_say_nearly_the_same(
    tmp_path: Path, folder: Path, module: Classifier, info: BundleInfo
) -> None:
    half = save_bundle(tmp_path / "half", module, info, half=True)
    sizes = [(p / "model.safetensors").stat().st_size for p in (half, folder)]
    assert sizes[0] / sizes[1] == pytest.approx(0.5, abs=0.01)
    crops = some_crops(8)
    near, full = load_model(half, "cpu").predict(crops), load_model(folder, "cpu").predict(crops)
    np.testing.assert_allclose(near.probabilities, full.probabilities, atol=0.03)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory (simulated)"), RuntimeError("MPS backend out of memory")]
)
def test_running_out_of_memory_halves_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    model = load_model(folder, "cpu")
    crops = some_crops(20)
    expected = model.predict(crops).probabilities
    real = model.module.body.forward

    def stingy(images: torch.Tensor) -> torch.Tensor:
        if len(images) > 4:
            raise error
        return real(images)

    monkeypatch.setattr(model.module.body, "forward", stingy)
    np.testing.assert_allclose(model.predict(crops).probabilities, expected, atol=0.01)
    assert model.micro_batch == 4


@pytest.mark.parametrize(
    "crops", [np.zeros((2, 3, 8, 8), np.float32), np.zeros((3, 8, 8), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)]
)
def test_crops_of_another_kind_are_refused(folder: Path, crops: Any) -> None:
    with pytest.raises(UsageError, match="uint8"):
        load_model(folder, "cpu").predict(crops)


def change_json(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object], rehash: bool = True) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)  # clones, as the file that they may be mapped from is written over
    save_file(tensors, folder / "model.safetensors")
    if rehash:
        change_json(folder, sha256=hash_tensors(tensors))


def drop_class(folder: Path) -> None:
    found = json.loads((folder / "model.json").read_text())
    found["scheme"]["classes"].pop()
    change_json(folder, scheme=found["scheme"], confusion=None)


BAD = [
    ("missing tensor", lambda f: change_tensors(f, lambda t: t.pop("body.1.bias")), "body.1.bias are missing"),
    (
        "wrong shape",
        lambda f: change_tensors(f, lambda t: t.update({"body.1.bias": torch.zeros(7)})),
        r"body.1.bias have the shape \(7,\), cnn3 needs \(16,\)",
    ),
    (
        "not a number",
        lambda f: change_tensors(f, lambda t: t["body.1.bias"].fill_(float("nan"))),
        "body.1.bias hold a value that is no number",
    ),
    (
        "infinite",
        lambda f: change_tensors(f, lambda t: t["head.weight"][0].fill_(float("inf"))),
        "head.weight hold a value that is no number",
    ),
    (
        "infinite as the network holds it",
        lambda f: change_tensors(f, lambda t: t.update({"head.bias": torch.full((5,), 1e300, dtype=torch.float64)})),
        "head.bias hold a value that is no number",
    ),
    *[
        (
            "complex",
            lambda f: change_tensors(f, lambda t: t.update({"head.bias": torch.full((5,), 1j)})),
            "head.bias hold a value that is no number",
        )
        for kind in (torch.complex64,)
        if kind in safetensors.torch._SIZE  # an older safetensors reads none
    ],
    ("more tensors", lambda f: change_tensors(f, lambda t: t.update(extra=torch.zeros(1))), "no place for .extra."),
    (
        "half a feature space",
        lambda f: change_tensors(f, lambda t: t.update({"distance.means": torch.zeros(5, 2)})),
        "distance.whiten are missing",
    ),
    (
        "another feature space",
        lambda f: change_tensors(
            f, lambda t: t.update({"distance.means": torch.zeros(5, 2), "distance.whiten": torch.zeros(3, 2)})
        ),
        "do not fit the network's 512 features",
    ),
    (
        "half of what tells microscopes apart",
        lambda f: change_tensors(
            f,
            lambda t: t.update(
                {
                    "distance.means": torch.zeros(5, 2),
                    "distance.whiten": torch.zeros(512, 2),
                    "distance.drift": torch.zeros(3, 2),
                }
            ),
        ),
        "distance.within are missing",
    ),
    (
        "microscopes of another space",
        lambda f: change_tensors(
            f,
            lambda t: t.update(
                {
                    "distance.means": torch.zeros(5, 2),
                    "distance.whiten": torch.zeros(512, 2),
                    "distance.drift": torch.zeros(3, 4),
                    "distance.within": torch.tensor(1.0),
                }
            ),
        ),
        "do not fit the network's 512 features",
    ),
    (
        "changed weights",
        lambda f: change_tensors(f, lambda t: t["head.bias"].add_(1), rehash=False),
        "not those it was made with",
    ),
    ("no hash", lambda f: change_json(f, sha256=""), "not those it was made with"),
    ("class list of another length", drop_class, "tell 5 classes apart but it names 4"),
    ("unknown architecture", lambda f: change_json(f, arch="transformer"), "'transformer' is not known"),
    ("unknown option", lambda f: change_json(f, options={"norm": "group"}), "cannot be built"),
    (
        "a network of thousands of layers",
        lambda f: change_json(f, arch="stainnet", options={"depth2": 65536}),
        "1 to 64 blocks",
    ),
    ("a network without end", lambda f: change_json(f, arch="stainnet", options={"width": 65536}), "1024 channels"),
    (
        "weights from the network",
        lambda f: change_json(f, arch="vgg16", options={"weights": "imagenet"}),
        "asks for the weights 'imagenet'",
    ),
    (
        "weights of this machine",
        lambda f: change_json(f, arch="vgg16", options={"weights": "/etc/secret.safetensors"}),
        "must bring its own",
    ),
    ("unknown field", lambda f: change_json(f, run="rm"), "run: Extra inputs"),
    ("newer format", lambda f: change_json(f, format=2), "format"),
    ("huge input", lambda f: change_json(f, input_size=[100000, 100000]), "input_size.0"),
    ("huge crop", lambda f: change_json(f, crop={"size": 10**6}), "out of range"),
    ("negative crop", lambda f: change_json(f, crop={"size": -1}), "above zero|out of range"),
    ("long name", lambda f: change_json(f, name="x" * 1000), "name: String should match"),
    ("path as name", lambda f: change_json(f, name="../../etc"), "name: String should match"),
    ("temperature zero", lambda f: change_json(f, temperature=0), "temperature"),
    ("threshold above one", lambda f: change_json(f, min_confidence=1.5), "min_confidence"),
    ("spread zero", lambda f: change_json(f, normalization={"mean": [0, 0, 0], "std": [0, 1, 1]}), "std"),
    ("confusion of another size", lambda f: change_json(f, confusion=[[1]]), "confusion matrix is not 5 by 5"),
    ("too many metrics", lambda f: change_json(f, metrics=[{}] * 6000), "metrics"),
    ("one class twice", lambda f: change_json(f, scheme={"name": "a", "classes": [{"name": "x"}] * 2}), "named twice"),
    ("no JSON", lambda f: (f / "model.json").write_text("{"), "metadata cannot be used"),
    ("deep JSON", lambda f: (f / "model.json").write_text("[" * 100_000), "metadata cannot be used"),
    ("NaN in JSON", lambda f: (f / "model.json").write_text('{"temperature": NaN}'), "metadata cannot be used"),
    ("bytes as JSON", lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"), "metadata cannot be used"),
    ("empty JSON", lambda f: (f / "model.json").write_text(""), "empty"),
    ("large JSON", lambda f: (f / "model.json").write_text(" " * 5_000_000), "limit"),
    ("no JSON at all", lambda f: (f / "model.json").unlink(), "model.json"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "model.safetensors"),
    ("cut weights", lambda f: os.truncate(f / "model.safetensors", 5000), "no whole safetensors file"),
    ("empty weights", lambda f: os.truncate(f / "model.safetensors", 0), "empty"),
    ("a pickle in disguise", lambda f: torch.save({}, f / "model.safetensors"), "pickle"),
]


@pytest.mark.parametrize(("harm", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_a_harmed_bundle_has_its_own_error(folder: Path, harm: Callable[[Path], object], words: str) -> None:
    harm(folder)
    with pytest.raises(BundleError, match=words) as caught:
        load_model(folder, "cpu")
    assert "\n" not in str(caught.value)


def test_every_changed_byte_of_the_weights_is_noticed(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    for position in [*range(0, 16), *rng.integers(16, len(data), 20)]:
        changed = bytearray(data)
        changed[position] ^= 0x10
        (folder / "model.safetensors").write_bytes(bytes(changed))
        with pytest.raises(BundleError):
            load_model(folder, "cpu")


@pytest.mark.parametrize("name", ["m.pth", "m.pt", "m.joblib", "m.h5", "m.keras", "m.pkl", "M.PTH", "m.ckpt"])
def test_a_pickle_is_refused_with_a_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for given in (tmp_path / name, tmp_path):
        with pytest.raises(BundleError, match=r"refused.*safetensors.*convert"):
            load_model(given, "cpu")


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "owned"),))

    torch.save(Evil(), tmp_path / "evil.pth")
    shutil.copy(tmp_path / "evil.pth", tmp_path / "evil.safetensors")
    for name in ("evil.pth", "evil.safetensors"):
        with pytest.raises(BundleError):
            load_model(tmp_path / name, "cpu")
    assert not (tmp_path / "owned").exists()


def test_weights_alone_are_no_bundle(tmp_path: Path, module: Classifier) -> None:
    save_file(module.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(BundleError, match="does not say of what"):
        load_model(tmp_path / "bare.safetensors", "cpu")


@pytest.mark.parametrize("given", ["no-such-model", "./no/such/folder"])
def test_a_model_that_is_not_there_is_named(given: str) -> None:
    with pytest.raises(BundleError, match="no such model; installed"):
        load_model(given, "cpu")


def test_a_bundle_is_not_overwritten_unasked(
    folder: Path, tmp_path: Path, module: Classifier, info: BundleInfo
) -> None:
    with pytest.raises(OutputError, match="already"):
        save_bundle(folder, module, info)
    save_bundle(folder, module, info, overwrite=True)
    single = save_bundle(tmp_path / "one.safetensors", module, info)
    with pytest.raises(OutputError, match="already"):
        save_bundle(single, module, info)


def test_models_in_the_users_folder_are_found_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOODCELLS_MODELS", str(folder.parent))
    assert load_model("tiny", "cpu").info.name == "tiny"
    assert "tiny" in [found.name for found in installed_models()]


def test_the_scheme_of_a_bundle_understands_labels(info: BundleInfo) -> None:
    scheme = info.class_scheme
    assert scheme.names == info.class_names
    assert scheme.index("Segmented Neutrophils") == info.class_names.index("neutrophil")


def test_a_users_own_scheme_goes_into_the_bundle() -> None:
    classes = [{"name": "blast", "key": "b", "color": "#112233", "aliases": ["Blasten"]}, {"name": "smudge cell"}]
    scheme = SchemeInfo.model_validate({"name": "own", "classes": classes})
    info = BundleInfo(name="own", arch="cnn3", scheme=scheme, crop=CropSpec(), input_size=(50, 50))
    assert info.class_scheme.index("blasten") == 0
    assert info.class_scheme.colors["blast"] == "#112233"


def test_a_model_knows_the_classes_that_its_training_had_cells_of(info: BundleInfo) -> None:
    def learned(*sources: TrainingSource) -> tuple[bool, ...]:
        return info.model_copy(update={"training": sources}).learned

    first = TrainingSource(source="a", counts={"neutrophil": 5, "eosinophil": 3, "basophil": 0, "monocyte": 1})
    more = TrainingSource(source="calibration: mine", counts={"lymphocyte": 2})
    assert learned() == (True,) * 5  # it does not say
    assert learned(first) == (True, True, False, False, True)
    assert learned(first, more) == (True, True, False, True, True)
    assert learned(more) == (True,) * 5  # nothing is said of what it learned before
