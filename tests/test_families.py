"""A family of networks is one value: nothing else in the program asks for a family by its name."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
import torch
import yaml
from torch import Tensor, nn

from napari_embryo import library, models, pipeline, train
from napari_embryo.augment import TrainingSet
from napari_embryo.data import Sample
from napari_embryo.drawing import draw_blastocysts
from napari_embryo.families import FAMILIES, NetworkSettings, segmenting_families
from napari_embryo.families.family import Family
from napari_embryo.image import EmbryoImage
from napari_embryo.models import binary_loss, checkpoint
from napari_embryo.models.network import Network, NetworkFunctions
from napari_embryo.settings import Augmentation, Preprocessing, Recipe, SegmentSettings, TrainSettings

SRC = Path(models.__file__).parents[1]

MAY_NAME_A_FAMILY = ("families", "models", "reproduce")
"""The registries' sides, and the papers' tables, each of which is about networks of one family."""


def modules() -> Iterator[Path]:
    for path in sorted(SRC.rglob("*.py")):
        if path.relative_to(SRC).parts[0] not in MAY_NAME_A_FAMILY:
            yield path


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where a family's name or its settings' class stands in code."""
    classes = {family.settings.__name__ for family in FAMILIES.values()}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text, lineno=line) if text in FAMILIES:
                yield line, text
            case ast.Name(id=name, lineno=line) if name in classes:
                yield line, name


def test_no_family_is_named_outside_its_own_modules() -> None:
    found = [
        f"{path.relative_to(SRC)}:{line} {name}"
        for path in modules()
        for line, name in named(ast.parse(path.read_text(encoding="utf-8")))
        if path != SRC / "__init__.py"  # the public API exports every family's settings
    ]
    assert found == []


@pytest.mark.parametrize("text", ["if family == 'unet': pass", "isinstance(x, ShapeCodeSettings)"])
def test_a_name_would_be_found(text: str) -> None:
    assert list(named(ast.parse(text)))


def test_the_registries_have_the_same_families(repository: Path) -> None:
    assert set(models.NETWORKS) == set(FAMILIES)
    manifest = yaml.safe_load((repository / "napari.yaml").read_text(encoding="utf-8"))
    offered = manifest["contributions"]["configurations"]["segment"]["properties"]["family"]["enum"]
    assert set(offered) == set(segmenting_families())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_says_what_its_networks_have(name: str) -> None:
    family, network = FAMILIES[name], models.build(FAMILIES[name].settings())
    assert network.settings.family == name
    assert set(network.map_names()) <= set(family.maps)
    assert set(family.usual_maps) <= set(network.map_names())
    assert tuple(network.cam_layers()) == family.cam_layers
    assert (models.NETWORKS[name].decode is not None) == family.draws
    assert library.bundled(name).is_file() if family.ships else True


def test_layer_and_file_and_tooltip_say_the_same_of_every_map(tmp_path: Path) -> None:
    from napari_embryo.widgets.segment import meanings

    maps = ("SA2", "CA1", "LA")
    predictor = pipeline.load_predictor(SegmentSettings(maps=maps, device="cpu"))
    image = EmbryoImage(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), "YX", "embryo")
    (step,) = pipeline.analyze(image, predictor)
    in_layer = {found.name: found.meaning for found in step.item.maps}
    list(pipeline.segment_to_files(image, predictor, tmp_path))
    described = tifffile.TiffFile(tmp_path / "embryo_attention.ome.tif").ome_metadata
    assert described is not None
    in_tooltip = meanings(predictor.family.name)
    for name in maps:
        assert in_layer[name] == in_tooltip[name]
        assert in_tooltip[name] in described


# --- a fourth family ------------------------------------------------------------------------------------------------


class ThresholdSettings(NetworkSettings):
    """A network of one convolution."""

    family: Literal["threshold"] = "threshold"
    classes: tuple[str, ...] = ("ICM", "TE", "ZP")


class Threshold(Network):
    """Finds what is bright or dark."""

    def __init__(self, settings: ThresholdSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Conv2d(4, len(settings.classes), 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(torch.relu(self.encoder(images)))}


@pytest.fixture
def fourth(monkeypatch: pytest.MonkeyPatch) -> str:
    """What a developer adds: a value in families/, a network in models/, and a line in each registry."""
    family = Family(
        settings=ThresholdSettings, title="Threshold", finds="blastocyst", about="bright things", recipes={"random": ""}
    )
    network = NetworkFunctions(
        build=Threshold,
        loss=binary_loss.loss,
        counts=binary_loss.counts,
        score=binary_loss.score,
        decode=binary_loss.to_parts,
    )
    monkeypatch.setitem(FAMILIES, family.name, family)
    monkeypatch.setitem(models.NETWORKS, family.name, network)
    return family.name


def drawn(folder: Path) -> Sequence[Sample]:
    from napari_embryo import data
    from napari_embryo.settings import DataSettings

    draw_blastocysts(folder, 2, (64, 64))
    return data.find_samples(DataSettings(folders=(str(folder),)), ("ICM", "TE", "ZP")).samples


def test_a_fourth_family_is_trained_saved_and_used(fourth: str, tmp_path: Path) -> None:
    recipe = Recipe(
        model=ThresholdSettings(),
        start="random",
        preprocessing=Preprocessing(height=64, width=64),
        augmentation=Augmentation(),
        training=TrainSettings(epochs=1, batch_size=2, device="cpu", encoder_rate=1.0),
    )
    assert Recipe.model_validate(recipe.model_dump()).model == recipe.model
    samples = drawn(tmp_path / "drawn")
    assert TrainingSet(samples, recipe.preprocessing).item(0, 0)["image"].shape[-2:] == (64, 64)
    list(train.train(models.build(recipe.model), samples, samples, recipe, tmp_path / "run"))
    weights = tmp_path / "run" / "best.safetensors"
    assert library.family_of(weights) == fourth
    assert isinstance(checkpoint.load(weights).model, Threshold)
    predictor = pipeline.load_predictor(SegmentSettings(weights=str(weights), device="cpu", maps=()))
    assert predictor.family.name == fourth
    image = EmbryoImage(samples[0].read().image, "YX", "embryo")
    (step,) = pipeline.analyze(image, predictor)
    assert step.item.finding.classes == ("ICM", "TE", "ZP")


def test_the_window_offers_a_fourth_family(fourth: str, qtbot: object) -> None:
    from napari.components import ViewerModel

    from napari_embryo.widgets.segment import SegmentWidget

    widget = SegmentWidget(ViewerModel())
    assert fourth in widget.family.choices
    widget.use(fourth, "bundled")
    assert widget.form.value().family == fourth
    widget.close()
