"""A family of networks is one value: nothing else in the program asks for a family by its name."""

import ast
import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
import torch
import yaml
from torch import Tensor, nn

import napari_embryo
from napari_embryo import library, models, pipeline, recipes, train
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

MAY_NAME_A_FAMILY = {
    "families": "where the families are",
    "models": "where their networks are",
    "__init__.py": "the public API has the settings of every family",
    "reproduce": "every table of a paper is about networks of one family",
    "cli/reproduce.py": "its help describes these tables",
    "completion.py": "completes cells by the shape code, whatever network it is part of",
    "train/silhouette_dataset.py": "what a shape code learns from",
}
"""Folders and files -> why they may."""


SHIPPED = {path.stem for path in (SRC / "weights").glob("*.safetensors")}


def modules() -> Iterator[Path]:
    for path in sorted(SRC.rglob("*.py")):
        at = path.relative_to(SRC)
        if not {at.parts[0], at.as_posix()} & MAY_NAME_A_FAMILY.keys():
            yield path


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Where the name of a family stands in code: in a text (docstrings apart), as its settings' class, in an import."""
    classes = {family.settings.__name__ for family in FAMILIES.values()}
    word = re.compile(rf"(?<![\w-])({'|'.join(FAMILIES)})(?!\w)")
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as text, lineno=line) if id(node) not in docstrings and word.search(text):
                yield line, text
            case ast.Name(id=name, lineno=line) | ast.Attribute(attr=name, lineno=line) if name in classes:
                yield line, name
            case ast.ImportFrom(module=str() as home, names=names, lineno=line):
                imported = {*home.split("."), *(each.name for each in names)}
                if imported & {*FAMILIES, *classes}:
                    yield line, home


def test_no_family_is_named_outside_its_own_modules() -> None:
    found = [
        f"{path.relative_to(SRC)}:{line} {name}"
        for path in modules()
        for line, name in named(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "if family == 'unet': pass",
        "isinstance(x, ShapeCodeSettings)",
        "isinstance(x, families.ShapeCodeSettings)",
        "help = 'regdeeplab: other weights'",
        "help = f'{name} of vqamodal'",
        "from napari_embryo.models.vqamodal import views",
        "from napari_embryo.models import regdeeplab",
    ],
)
def test_a_name_would_be_found(text: str) -> None:
    assert list(named(ast.parse(text)))


@pytest.mark.parametrize("place", MAY_NAME_A_FAMILY)
def test_every_exception_is_needed(place: str) -> None:
    paths = [SRC / place] if place.endswith(".py") else sorted((SRC / place).rglob("*.py"))
    assert any(True for path in paths for _ in named(ast.parse(path.read_text(encoding="utf-8"))))


def test_the_registries_have_the_same_families(repository: Path) -> None:
    assert set(models.NETWORKS) == set(FAMILIES)
    assert {family.settings.__name__ for family in FAMILIES.values()} <= set(napari_embryo.__all__)
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
    assert (models.NETWORKS[name].adopt is not None) == bool(family.additions)
    assert (network.shape_code() is not None) == family.has_shape_code
    assert (network.settings.silhouette_side is not None) == family.is_shape_code
    assert (name in SHIPPED) == family.ships


@pytest.mark.parametrize(("name", "start"), [(name, start) for name in FAMILIES for start in FAMILIES[name].recipes])
def test_the_recipes_of_a_family_train_it_from_their_start(name: str, start: str) -> None:
    recipe = recipes.read(FAMILIES[name].recipes[start])
    assert (recipe.model.family, recipe.start) == (name, start)


def test_a_recipe_adds_only_what_its_family_can_add() -> None:
    for family in FAMILIES.values():
        assert family.settings.model_validate(family.additions).model_dump().items() >= family.additions.items()


@pytest.mark.parametrize("name", [name for name in FAMILIES if FAMILIES[name].maps])
def test_layer_and_file_and_tooltip_say_the_same_of_every_map(tmp_path: Path, name: str) -> None:
    from napari_embryo.widgets.segment import meanings

    predictor = pipeline.load_predictor(SegmentSettings(family=name, maps=tuple(FAMILIES[name].maps), device="cpu"))
    image = EmbryoImage(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), "YX", "embryo")
    (step,) = pipeline.analyze(image, predictor)
    list(pipeline.segment_to_files(image, predictor, tmp_path))
    described = tifffile.TiffFile(tmp_path / "embryo_attention.ome.tif").ome_metadata or ""
    in_tooltip = meanings(name)
    assert {found.name: found.meaning for found in step.item.maps} == in_tooltip
    assert [meaning for meaning in in_tooltip.values() if html.escape(meaning) not in described] == []


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
