"""Learning from single cells: what a batch holds, networks that are told the truth, silhouettes, what never learns."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from torch import Tensor, nn

from napari_embryo import models
from napari_embryo.augment import TrainingSet, preview
from napari_embryo.data import Sample
from napari_embryo.families import FAMILIES, NetworkSettings, ShapeCodeSettings, UNetSettings, VQAmodalSettings
from napari_embryo.models import Watch
from napari_embryo.notes import Note
from napari_embryo.render import color_of
from napari_embryo.settings import Augmentation, Preprocessing, Recipe, TrainSettings
from napari_embryo.stream import Epoch, Finished
from napari_embryo.synthetic import draw_cleavage
from napari_embryo.train import loader, train
from napari_embryo.train.engine import Learner, Watcher
from napari_embryo.train.loader import items_for, visits_of
from napari_embryo.train.silhouette_dataset import Silhouettes, of_cells

SHAPE = (64, 64)
PRE = Preprocessing(height=64, width=64, look_again_below=0)
STILL = Augmentation(
    flips=False, rotation=0, zoom_out=1, zoom_in=1, shift=0, shear=0, crop=0, photometric=0, invert=0, wells=0
)
TINY_CODE = ShapeCodeSettings(codes=16, dimension=8)
Bools = npt.NDArray[np.bool_]


def ellipse(y: float, x: float, ry: float, rx: float) -> Bools:
    ys, xs = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return ((ys - y) / ry) ** 2 + ((xs - x) / rx) ** 2 <= 1


def picture(name: str, *cells: Bools, visible: Bools | None = None) -> Sample:
    drawn = np.stack(cells) if cells else np.zeros((0, *SHAPE), bool)
    image = (40 + 60 * drawn.sum(0)).astype(np.uint8)
    return Sample.of(name, image, drawn.any(0)[None], cells=drawn, visible=visible)


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """Two overlapping cells, none, one, and three of which two overlap."""
    left, right, small = ellipse(32, 22, 16, 14), ellipse(34, 40, 15, 16), ellipse(12, 50, 7, 8)
    return [picture("two", left, right), picture("none"), picture("one", right), picture("three", left, right, small)]


def recipe(model: NetworkSettings, augmentation: Augmentation = STILL, **training: Any) -> Recipe:
    chosen = {"epochs": 2, "batch_size": 2, "encoder_rate": 1.0, "precision": "float32", "device": "cpu", **training}
    return Recipe(
        start="random",
        model=model,
        preprocessing=PRE,
        augmentation=augmentation,
        training=TrainSettings.model_validate(chosen),
    )


def finish(running: Any) -> tuple[list[Any], Finished]:
    told = []
    while True:
        try:
            told.append(next(running).item)
        except StopIteration as end:
            return told, end.value


# --- what a batch holds ---------------------------------------------------------------------------------------------


def batch_of(samples: Sequence[Sample]) -> dict[str, Tensor]:
    items = TrainingSet(samples, PRE, cells=True)
    _, batch = next(loader.prepared(items, loader.in_order(len(samples), len(samples))))
    return batch


def test_pictures_with_fewer_cells_are_filled_up_with_empty_ones(samples: list[Sample]) -> None:
    batch = batch_of(samples)
    assert batch["cells"].shape == batch["visible"].shape == (4, 3, 64, 64)
    assert batch["cells"].dtype == batch["visible"].dtype == torch.bool
    assert torch.equal(batch["visible"], batch["cells"]), "of a source that tells no visible parts"
    for i, sample in enumerate(samples):
        drawn = sample.read().cells
        np.testing.assert_array_equal(batch["cells"][i, : len(drawn)], drawn)
        assert not batch["cells"][i, len(drawn) :].any()


def test_a_batch_without_a_cell_has_none() -> None:
    assert batch_of([picture("a"), picture("b")])["cells"].shape == (2, 0, 64, 64)


def test_visible_parts_come_along() -> None:
    left, right = ellipse(32, 22, 16, 14), ellipse(34, 40, 15, 16)
    seen = np.stack([left & ~right, right])
    batch = batch_of([picture("a", left, right, visible=seen), picture("b", left)])
    np.testing.assert_array_equal(batch["visible"][0], seen)
    np.testing.assert_array_equal(batch["visible"][1, 0], left)


@pytest.mark.parametrize(("height", "width", "is_there"), [(4, 4, True), (2, 8, True), (3, 5, False), (1, 1, False)])
def test_next_to_nothing_of_a_cell_is_no_cell(height: int, width: int, is_there: bool) -> None:
    remnant = np.zeros(SHAPE, bool)
    remnant[:height, 10 : 10 + width] = True
    cells = batch_of([picture("a", remnant, ellipse(40, 40, 9, 9))])["cells"][0]
    assert [bool(cell.any()) for cell in cells] == [is_there, True]


def test_a_cell_that_was_moved_out_of_the_picture_is_empty(samples: list[Sample]) -> None:
    items = TrainingSet(samples[3:], PRE, Augmentation(crop=0, wells=0, shift=0.5), 0, cells=True)
    seen = [items.item(epoch, 0)["cells"].flatten(1).sum(1) for epoch in range(30)]
    assert all(len(areas) == 3 for areas in seen)
    assert any((areas == 0).any() for areas in seen)
    assert all(((areas == 0) | (areas >= 16)).all() for areas in seen)


def test_a_preview_outlines_every_cell(samples: list[Sample]) -> None:
    """Also where one lies on another, in the color of cells."""
    (shown,) = preview(samples[:1], PRE, STILL, 0, 1, ("cell",))
    colored = (shown == color_of("cell")).all(-1)
    left, right = samples[0].read().cells
    assert colored[left & right].any()
    assert not colored[~(left | right)].any()


# --- a network that is told the truth -------------------------------------------------------------------------------


class Guided(nn.Module):
    """Tells the number and the area of cells; a network whose losses depend on what it looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = UNetSettings(base_channels=4, classes=("cell",))
        self.encoder, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 2)
        self.shape = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))

    def forward(self, images: Tensor, targets: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        if self.training and targets is None:
            raise ValueError("no targets came")
        told = self.shape(self.head(torch.tanh(self.encoder(images)).mean((2, 3))))
        outputs = {"told": told}
        if targets is not None:
            celled = number(targets) > 0
            area = targets["cells"].float().mean((2, 3)).sum(1)
            outputs["loss_number"] = (told[:, 0] - number(targets)).square()
            outputs["loss_area"] = (told[:, 1] - area).square().masked_fill(~celled, math.nan)
        if not self.training:
            outputs["scores"] = torch.sigmoid(told)
        return outputs


def number(targets: dict[str, Tensor]) -> Tensor:
    return targets["cells"].flatten(2).any(2).sum(1)


def counts(targets: dict[str, Tensor]) -> dict[str, float]:
    return {"number": float(len(targets["image"])), "area": float((number(targets) > 0).sum())}


def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
    celled = number(targets) > 0
    area = outputs["loss_area"].masked_fill(~celled, 0).sum() / celled.sum()
    return {"number": outputs["loss_number"].mean(), "area": area}


def score(outputs: dict[str, Tensor], targets: dict[str, Tensor], classes: Sequence[str]) -> dict[str, Tensor]:
    return {"AP": outputs["scores"][:, 0].masked_fill(number(targets) == 0, math.nan)}


@pytest.fixture
def guided(monkeypatch: pytest.MonkeyPatch) -> Guided:
    functions = replace(models.NETWORKS["unet"], loss=loss, counts=counts, score=score, guided=True)
    monkeypatch.setitem(models.NETWORKS, "unet", functions)
    monkeypatch.setitem(FAMILIES, "unet", replace(FAMILIES["unet"], learns_from="cells"))
    torch.manual_seed(0)
    return Guided()


def settings(**training: Any) -> TrainSettings:
    return recipe(UNetSettings(), clip_norm=0, **training).training


def step(batch: dict[str, Tensor], micro: int, **training: Any) -> tuple[dict[str, float], dict[str, Tensor], Learner]:
    torch.manual_seed(0)
    learner = Learner(Guided(), settings(**training), len(batch["image"]))
    learner.micro = micro
    losses = learner.learn(batch, 0)
    return losses, {n: p.grad.clone() for n, p in learner.model.named_parameters() if p.grad is not None}, learner


@pytest.mark.usefixtures("guided")
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_a_batch_in_parts_learns_as_the_whole_does(samples: list[Sample], micro: int) -> None:
    """A picture without cells has no area; in parts of one it is a part without a loss."""
    batch = batch_of(samples)
    losses, gradients, whole = step(batch, 4)
    assert losses.keys() == {"number", "area"}
    again, parted, split = step(batch, micro)
    assert again == pytest.approx(losses, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(parted[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
    told, scores = split.judge(batch)
    assert told == pytest.approx(whole.judge(batch)[0], rel=1e-5)
    assert scores["AP"].isnan().tolist() == [False, True, False, False]


@pytest.mark.usefixtures("guided")
def test_nothing_to_learn_is_a_step_of_zero_and_no_error() -> None:
    """Outputs that are no number where they mean nothing must not spoil it."""
    batch = batch_of([picture("a"), picture("b")])
    losses, gradients, learner = step(batch, 2, loss_weights={"number": 0})
    assert losses.keys() == {"number"}
    assert gradients
    assert all((gradient == 0).all() for gradient in gradients.values())
    assert learner.culprits(batch) == []


def test_a_run_tells_and_judges_what_there_is(guided: Guided, samples: list[Sample], tmp_path: Path) -> None:
    told, outcome = finish(train(guided, samples, samples, recipe(guided.settings), tmp_path))
    epochs = [item for item in told if isinstance(item, Epoch)]
    assert [set(epoch.validation) for epoch in epochs] == 2 * [{"number", "area"}]
    assert [set(epoch.scores) for epoch in epochs] == 2 * [{"AP"}]
    assert {name for name, _ in epochs[0].worst} == {"memory/two", "memory/one", "memory/three"}
    assert outcome.reason == "finished"


@pytest.mark.parametrize("parts", ["all", "decoder", "head"])
def test_the_shape_code_within_never_learns(guided: Guided, samples: list[Sample], tmp_path: Path, parts: str) -> None:
    """Nor is it in train mode: its dropout would change the codes."""
    before = {name: value.clone() for name, value in guided.state_dict().items()}
    finish(train(guided, samples, [], recipe(guided.settings, parts=parts), tmp_path))
    changed = {name.partition(".")[0] for name, value in guided.state_dict().items() if (value != before[name]).any()}
    assert changed == {"all": {"encoder", "head"}, "decoder": {"head"}, "head": {"head"}}[parts]
    assert not guided.shape.training


# --- silhouettes ----------------------------------------------------------------------------------------------------


def test_every_cell_is_a_sample_of_its_own(samples: list[Sample]) -> None:
    cells = of_cells(samples)
    assert [cell.name for cell in cells] == [
        "two cell 1", "two cell 2", "one cell 1", "three cell 1", "three cell 2", "three cell 3",
    ]  # fmt: skip
    assert {cell.embryo for cell in cells} == {"two", "one", "three"}
    drawn = [mask for sample in samples for mask in sample.read().cells]
    for cell, mask in zip(cells, drawn, strict=True):
        kept = cell.read().cells
        assert kept[0].sum() == mask.sum()
        assert all((other & kept[0]).any() for other in kept[1:])
    assert [len(cell.read().cells) for cell in cells] == [2, 2, 1, 2, 2, 1], "a cell and those that overlap it"


def test_only_a_shape_code_learns_from_cells_alone(samples: list[Sample]) -> None:
    code = models.build(TINY_CODE)
    visited = visits_of(code, samples)
    assert len(visited) == 6
    assert items_for(code, visited, PRE)[0]["image"].shape == (1, 32, 32)
    assert visits_of(Guided(), samples) == samples


@settings_of_hypothesis(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(12, 30), st.integers(12, 30))
def test_a_square_shows_a_cell_as_a_shaken_box_does(seed: int, height: int, width: int) -> None:
    """Box and rectangle overlap by an IoU of 0.5 at least: half of the box is cell, but for what a pixel rounds off."""
    cell = np.zeros(SHAPE, bool)
    cell[20 : 20 + height, 15 : 15 + width] = True
    item = Silhouettes(of_cells([picture("a", cell)]), 32, STILL, seed).item(0, 0)
    assert torch.equal(item["image"] > 0, item["masks"])
    assert item["masks"].float().mean() >= 0.5 - 2 / 32


def test_an_epochs_silhouette_is_the_same_in_every_run(samples: list[Sample]) -> None:
    cells = of_cells(samples)
    how = Augmentation(hide=0.5)
    first, again = (Silhouettes(cells, 32, how, 4) for _ in range(2))
    assert all(torch.equal(first.item(2, i)["image"], again.item(2, i)["image"]) for i in reversed(range(6)))
    assert not torch.equal(first.item(2, 0)["masks"], first.item(3, 0)["masks"])
    judged = Silhouettes(cells, 32)
    assert torch.equal(judged.item(0, 0)["image"], judged.item(0, 0)["image"])
    assert torch.equal(judged.item(0, 0)["image"] > 0, judged.item(0, 0)["masks"])


@pytest.mark.parametrize(
    ("how", "corners"),
    [
        ({}, {(1, 1)}),
        ({"flips": True}, {(0, 0), (0, 1), (1, 0), (1, 1)}),
        ({"rotation": 180.0}, {(0, 0), (0, 1), (1, 0), (1, 1)}),
        ({"rotation": 45.0}, {(1, 1)}),
    ],
    ids=str,
)
def test_silhouettes_are_mirrored_and_turned_by_quarters(how: dict[str, Any], corners: set[tuple[int, int]]) -> None:
    """A square that lacks its lower right quarter: which corner of what is seen is missing."""
    notched = np.zeros(SHAPE, bool)
    notched[16:48, 16:48] = ~(np.indices((32, 32)) >= 16).all(0)
    items = Silhouettes(of_cells([picture("a", notched)]), 32, STILL.model_copy(update=how), 1)
    seen = set()
    for epoch in range(60):
        mask = items.item(epoch, 0)["masks"][0].numpy()
        ys, xs = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        # two pixels inside, as a corner may be rounded
        lacking = {(y > 9, x > 9) for y in (ys[2], ys[-3]) for x in (xs[2], xs[-3]) if not mask[y, x]}
        seen |= lacking
    assert seen == corners


def test_a_part_is_hidden_as_often_as_told(samples: list[Sample]) -> None:
    """A tenth to a half of the cell, by a line or by a cell that overlaps it; the whole is to be drawn."""
    items = Silhouettes(of_cells(samples[:1]), 32, STILL.model_copy(update={"hide": 0.6}), 0)
    shares = []
    for epoch in range(300):
        item = items.item(epoch, 0)
        seen, whole = item["image"] > 0, item["masks"]
        assert not (seen & ~whole).any()
        shares.append(1 - float(seen.sum() / whole.sum()))
    hidden = [share for share in shares if share]
    assert len(hidden) / 300 == pytest.approx(0.6, abs=0.1)
    assert min(hidden) > 0.05
    assert max(hidden) < 0.55, "a half, and what a box that cuts the cell off or a pixel's rounding adds"


def rows(folder: Path) -> list[list[str]]:
    """The history without the clock."""
    return [line.split(",")[:-1] for line in (folder / "history.csv").read_text().splitlines()]


@pytest.mark.parametrize("codebook", ["ema", "loss"])
def test_a_shape_code_is_trained_and_goes_on_to_the_bit(tmp_path: Path, codebook: str) -> None:
    """Also its codes, which follow the vectors without a gradient."""
    drawn = [draw_cleavage(seed, shape=(96, 96)) for seed in range(4)]
    pictures = [Sample.of(f"e{i}", d.image, d.cells.any(0)[None], cells=d.cells) for i, d in enumerate(drawn)]
    described = TINY_CODE.model_copy(update={"codebook": codebook})
    run = recipe(described, Augmentation(hide=0.3), batch_size=4, learning_rate=1e-3, epochs=3)

    def fresh() -> nn.Module:
        torch.manual_seed(1)
        return models.build(described)

    told, outcome = finish(train(fresh(), pictures[:3], pictures[3:], run, tmp_path / "whole"))
    epochs = [item for item in told if isinstance(item, Epoch)]
    assert [set(epoch.scores) for epoch in epochs] == 3 * [{"IoU"}]
    assert epochs[-1].train["reconstruction"] < epochs[0].train["reconstruction"]
    assert outcome.best.is_file()
    cut = train(fresh(), pictures[:3], pictures[3:], run, tmp_path / "cut")
    while not isinstance(next(cut).item, Epoch):
        pass
    cut.close()
    finish(train(fresh(), pictures[:3], pictures[3:], run, tmp_path / "cut", resume=True))
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


def test_a_shape_code_learns_as_a_whole(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"parts: 'decoder' was given, but this network .* has no encoder; use 'all'"):
        finish(train(models.build(TINY_CODE), samples, [], recipe(TINY_CODE, parts="decoder"), tmp_path))


def test_pictures_without_a_cell_teach_no_silhouette(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no sample to learn from"):
        finish(train(models.build(TINY_CODE), samples[1:2], [], recipe(TINY_CODE), tmp_path))


def test_the_detector_of_silhouettes_is_trained(samples: list[Sample]) -> None:
    """The real network for a step: everything but the shape code moves, and all numbers are some."""
    described = VQAmodalSettings(shape=TINY_CODE, detections=4)
    torch.manual_seed(0)
    model = models.build(described)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = recipe(described, frozen_batch_norm=True, learning_rate=1e-4)
    learner = Learner(model, run.training, 2)
    learned = learner.learn(batch_of(samples[:2]), 0)
    judged, scores = learner.judge(batch_of(samples[:2]))
    assert {"objectness", "class", "box", "code", "mask", "occlusion"} <= learned.keys()
    assert learned.keys() == judged.keys()
    assert all(math.isfinite(value) for value in (*learned.values(), *judged.values()))
    assert scores.keys() == {"best IoU", "AP"}
    assert scores["AP"].isnan().tolist() == [False, True]
    moved = {name.partition(".")[0] for name, value in model.state_dict().items() if (value != before[name]).any()}
    assert moved == {"encoder", "pyramid", "occlusion", "proposals", "box", "head"}


# --- a number that is the same for all pictures -----------------------------------------------------------------------


SAME = Watch(lambda outputs: outputs["told"][:, 0] if "told" in outputs else None, 1e-3, "says the same")


@pytest.mark.parametrize(
    ("numbers", "warning"),
    [
        ([[0.3, 0.3], [0.3]], "says the same"),
        ([[0.3], [0.31]], None),
        ([[0.3]], None),
        ([], None),
        ([[0.3, 0.3004]], "says the same"),
    ],
)
def test_a_number_has_to_differ_from_picture_to_picture(numbers: list[list[float]], warning: str | None) -> None:
    watcher = Watcher(SAME)
    for batch in numbers:
        watcher.look({"told": torch.tensor(batch)[:, None]})
    watcher.look({"logits": torch.zeros(3)})
    assert watcher.warning() == (None if warning is None else Note("warning", warning))
    assert watcher.warning() is None, "what was told of is forgotten"
    nobody = Watcher(None)
    nobody.look({"told": torch.zeros(3, 1)})
    assert nobody.warning() is None


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize(("warm_up", "told_after"), [(0.1, 1), (0.6, 2)])
def test_a_collapsed_head_is_told_of_once(
    guided: Guided, samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    judged: bool, warm_up: float, told_after: int,
) -> None:  # fmt: skip
    """Of the pictures judged, else of those learned from; not before the rate was up."""
    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], watch=SAME))
    nn.init.zeros_(guided.shape[0].weight)
    run = recipe(guided.settings, warm_up=warm_up, epochs=3)
    told, outcome = finish(train(guided.eval(), samples, samples if judged else [], run, tmp_path))
    assert outcome.notes.count(Note("warning", "says the same")) == 1
    before = told[: told.index(Note("warning", "says the same"))]
    assert sum(isinstance(item, Epoch) for item in before) == told_after - 1


def test_heads_that_regress_are_watched() -> None:
    for family in ("regdeeplab", "inception"):
        watch = models.NETWORKS[family].watch
        assert "regression_rate" in watch.warning
        assert watch.number({"logits": torch.zeros(2, 2, 4, 4)}) is None
        told = watch.number({"ratio": torch.tensor([[0.0], [20.0]])})
        torch.testing.assert_close(told, torch.tensor([0.5, 1.0]))
