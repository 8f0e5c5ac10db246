"""The bundled weights: what a user gets without training anything."""

from pathlib import Path

import numpy as np
import pytest

from napari_embryo import completion, data, measure
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.models import checkpoint
from napari_embryo.predict import Predictor
from napari_embryo.settings import DataSettings, SegmentSettings
from napari_embryo.synthetic import draw_blastocyst, draw_cleavage

USABLE = 0.5
"""IoU from which a found part overlaps the true one more than it misses it; set before anything was measured."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(checkpoint.load(), SegmentSettings(maps=()))


@pytest.mark.parametrize(("seed", "style"), [(101, "microscope"), (102, "incubator")])
def test_finds_the_parts_of_drawn_embryos(predictor: Predictor, seed: int, style: str) -> None:
    embryo = draw_blastocyst(seed, style=style)
    found = next(predictor.predict([embryo.image])).finding
    truth = embryo.stack(BLASTOCYST_CLASSES)
    assert np.mean([measure.iou(a, b) for a, b in zip(found.masks, truth, strict=True)]) > USABLE


def test_agrees_with_experts_on_an_embryo_not_trained_on(predictor: Predictor, data_dir: Path) -> None:
    settings = DataSettings(folders=(str(data_dir / "blastocyst" / "expert"),))
    (sample,) = (s.read() for s in data.find_samples(settings, BLASTOCYST_CLASSES).samples)
    found = next(predictor.predict([sample.image])).finding
    ious = [measure.iou(a, b) for a, b in zip(found.masks, sample.masks, strict=True)]
    assert min(ious) > USABLE


@pytest.fixture(scope="module")
def fragments() -> Predictor:
    return Predictor(checkpoint.load(family="regdeeplab"), SegmentSettings(family="regdeeplab", maps=()))


def test_finds_the_fragments_of_a_drawn_embryo(fragments: Predictor) -> None:
    embryo = draw_cleavage(901, fragmentation=0.25)
    found = next(fragments.predict([embryo.image])).finding
    drawn = embryo.fragments.astype(bool)
    assert measure.dice(found.masks[0], drawn) > USABLE
    assert measure.iou(found.masks[1], drawn | embryo.cells.any(axis=0)) > USABLE
    assert 0 < found.numbers["ratio_regressed"] < 1


def test_finds_the_embryo_that_experts_drew(fragments: Predictor, data_dir: Path) -> None:
    settings = DataSettings(folders=(str(data_dir / "cleavage" / "expert"),))
    for sample in (s.read() for s in data.find_samples(settings, FRAGMENT_CLASSES).samples):
        found = next(fragments.predict([sample.image])).finding
        assert measure.iou(found.masks[1], sample.masks[1]) > USABLE


@pytest.fixture(scope="module")
def cells() -> Predictor:
    return Predictor(checkpoint.load(family="vqamodal"), SegmentSettings(family="vqamodal", maps=()))


def best_ious(found: np.ndarray, drawn: np.ndarray) -> list[float]:
    """Of every drawn cell with the found one that fits it best."""
    return [max((measure.iou(mask, cell) for mask in found), default=0.0) for cell in drawn]


@pytest.mark.parametrize(("seed", "style"), [(901, "microscope"), (902, "incubator")])
def test_finds_the_cells_of_drawn_embryos(cells: Predictor, seed: int, style: str) -> None:
    """Each as a whole, also where others cover it."""
    embryo = draw_cleavage(seed, 4, style=style)
    found = next(cells.predict([embryo.image])).finding
    assert np.mean(best_ious(found.masks, embryo.cells)) > USABLE


def test_finds_the_cells_that_experts_drew(cells: Predictor, data_dir: Path) -> None:
    settings = DataSettings(folders=(str(data_dir / "cleavage" / "expert"),))
    for sample in (s.read() for s in data.find_samples(settings, ("cell",)).samples):
        found = next(cells.predict([sample.image])).finding
        assert np.mean(best_ious(found.masks, sample.cells)) > USABLE


@pytest.mark.parametrize("seed", [911, 912])
def test_complete_what_is_cut_off(seed: int) -> None:
    """Two thirds of a drawn cell become more of the whole than they are."""
    whole = draw_cleavage(seed, 2).cells[0]
    rows = np.flatnonzero(whole.any(1))
    part = whole.copy()
    part[rows[len(rows) * 2 // 3] :] = False
    completed = completion.complete(part) >= 0.5
    assert measure.iou(completed, whole) > measure.iou(part, whole)


@pytest.mark.parametrize("family", ["resanet", "regdeeplab", "vqamodal"])
def test_say_where_they_come_from(family: str) -> None:
    info = checkpoint.read_info(checkpoint.bundled(family))
    assert {"data", "split", "metrics", "stages"} <= info.provenance.keys()


@pytest.mark.parametrize("family", ["resanet", "regdeeplab", "vqamodal"])
def test_have_a_model_card(family: str) -> None:
    card = checkpoint.bundled(family).with_suffix(".md").read_text(encoding="utf-8")
    for part in ("Data", "Split", "Metrics", "License", "Intended use"):
        assert f"## {part}" in card
