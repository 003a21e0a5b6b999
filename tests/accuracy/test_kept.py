"""What the benchmarks keep: the boxes found on Kaggle's copies, and the weights of trainings in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from benchmarks.accuracy import leave_one_out
from benchmarks.accuracy.copies import boxed
from benchmarks.accuracy.trunk import load_trunk, save_trunk
from safetensors.torch import load_file

from napari_bloodcells.core.datasets import Sample
from napari_bloodcells.core.localize.learned import LearnedLocalizer, load_learned


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[None]:
    """One entry for each time that the localizer is asked."""
    monkeypatch.setenv("BLOODCELLS_CACHE", str(tmp_path / "cache"))
    calls: list[None] = []
    find = LearnedLocalizer.find

    def counting(self: LearnedLocalizer, *given: object, **more: object) -> object:
        calls.append(None)
        return find(self, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(LearnedLocalizer, "find", counting)
    return calls


def samples_in(folder: Path, n: int) -> list[Sample]:
    from PIL import Image

    from napari_bloodcells.synthetic import SmearSettings, draw_smear

    settings = SmearSettings(width=320, height=240, um_per_pixel=0.2)
    for i in range(n - 1):
        Image.fromarray(draw_smear(seed=i, settings=settings).image).save(folder / f"{i}.png")
    Image.new("RGB", (320, 240), (235, 235, 235)).save(folder / f"{n - 1}.png")  # no cell
    return [Sample(folder / f"{i}.png", None, "neutrophil", f"g{i}", "kaggle") for i in range(n)]


def test_what_was_found_is_not_looked_for_again(tmp_path: Path, asked: list[None]) -> None:
    samples, localizer = samples_in(tmp_path, 3), load_learned()
    first = list(boxed(samples, localizer))
    assert len(asked) == 3
    assert [s.image.name for s in first] == ["0.png", "1.png"]
    assert all(s.box is not None and s.um_per_pixel is not None for s in first)
    assert list(boxed(samples, localizer)) == first
    assert len(asked) == 3

    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())  # another picture under the old name
    again = list(boxed(samples, localizer))
    assert len(asked) == 4
    assert (again[0].box, again[1]) == (first[1].box, first[1])

    (kept,) = (tmp_path / "cache" / "copies").iterdir()
    kept.write_text("[1, 2")
    assert list(boxed(samples, localizer)) == again
    assert len(asked) == 7


def test_what_was_found_before_a_stop_is_kept(tmp_path: Path, asked: list[None]) -> None:
    samples, localizer = samples_in(tmp_path, 3), load_learned()
    stopped = boxed(samples, localizer)
    next(stopped)
    stopped.close()
    assert len(asked) == 1
    list(boxed(samples, localizer))
    assert len(asked) == 3


def test_weights_are_kept_in_16_bits_too_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"head.weight": torch.randn(8, 256), "head.bias": torch.randn(8)}
    trunk = leave_one_out.trunk_of(tmp_path, ["pbc"])
    monkeypatch.setattr(leave_one_out, "train_trunk", lambda *_: weights)
    cells = leave_one_out.AllCells(
        torch.zeros(1), torch.zeros(1), *(leave_one_out.np.array([v]) for v in (0, "pbc", "g", 0, False))
    )
    settings = leave_one_out.TrunkSettings()
    assert leave_one_out.train_without(cells, ["pbc"], settings, tmp_path) is weights
    half = load_file(trunk.with_suffix(".safetensors"))
    assert {t.dtype for t in half.values()} == {torch.float16}
    assert trunk.with_suffix(".safetensors").stat().st_size < 0.7 * trunk.stat().st_size
    assert torch.equal(load_trunk(trunk)["head.weight"], weights["head.weight"])

    trunk.unlink()  # what is kept of a result may be the small file alone
    monkeypatch.delattr(leave_one_out, "train_trunk")  # nothing is trained where it is there
    read = leave_one_out.train_without(cells, ["pbc"], settings, tmp_path)
    for name, tensor in weights.items():
        assert read[name].dtype == torch.float32
        assert torch.allclose(read[name], tensor, rtol=1e-3, atol=1e-6)
    with pytest.raises(FileNotFoundError):
        load_trunk(tmp_path / "without-bccd.pt")


def test_start_goes_on_from_the_weights_in_16_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {"head.weight": torch.randn(2, 2)}
    (tmp_path / "old").mkdir()
    save_trunk(weights, tmp_path / "old" / "without-pbc.pt")
    (tmp_path / "old" / "without-pbc.pt").unlink()
    began: list[torch.Tensor] = []
    monkeypatch.setattr(leave_one_out, "gather", lambda *_, **__: None)
    monkeypatch.setattr(leave_one_out, "train_without", lambda *given: began.append(given[-1]["head.weight"]))
    monkeypatch.setattr(leave_one_out, "run_source", lambda *_: None)
    threads = torch.get_num_threads()
    try:
        leave_one_out.main(["--start", str(tmp_path / "old"), "--sources", "pbc", "-o", str(tmp_path / "new")])
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(began[0], weights["head.weight"], rtol=1e-3)
