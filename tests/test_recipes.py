"""Recipes: read with messages that help, checked against the data, run into a folder that stays of use."""

import csv
import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from napari_embryo import data, io, library, models, recipes, reproduce, stream, train
from napari_embryo.drawing import draw_cleavages
from napari_embryo.families import (
    BLASTOCYST_CLASSES,
    ResANetSettings,
    ShapeCodeSettings,
    UNetSettings,
    VQAmodalSettings,
)
from napari_embryo.models import checkpoint
from napari_embryo.notes import Note
from napari_embryo.recipes import files
from napari_embryo.settings import Augmentation, DataSettings, Preprocessing, Recipe, TrainSettings

TINY = Recipe(
    name="tiny",
    start="random",
    model=UNetSettings(base_channels=4),
    preprocessing=Preprocessing(height=48, width=64),
    training=TrainSettings(epochs=2, batch_size=2, device="cpu", precision="float32"),
)


@pytest.fixture(autouse=True)
def _own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path / "shelf"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce.draw_embryos(tmp_path_factory.mktemp("data") / "drawn", 6, (64, 80))


@pytest.fixture
def tiny(drawn: Path) -> Recipe:
    return TINY.model_copy(update={"data": DataSettings(folders=(str(drawn),))})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "two.safetensors"
    settings = UNetSettings(base_channels=4, classes=("ZP", "ICM"))
    info = checkpoint.CheckpointInfo(model=settings, preprocessing=Preprocessing(height=40, width=56, fit="stretch"))
    checkpoint.save(path, models.build(settings), info)
    return path


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("training: {epochs: 0}", "training.epochs: 0 was given; a number of at least 1 is needed"),
        ("training: {epochs: many}", "training.epochs: 'many' was given; a whole number is needed"),
        ("training: {epoch: 3}", "training.epoch: there is no such setting; did you mean epochs?"),
        ("color: red", "color: there is no such setting; available are name, model, preprocessing"),
        ("model: {family: resanet, widths: wide}", "model.widths: there is no such setting; did you mean width?"),
        ("model: {family: vgg}", "model.family: 'vgg' was given; choose resanet or regdeeplab"),
        ("model: {width: wide}", "model.family: no family was given; choose resanet or"),
        ("model: {family: resanet, head: softmax}", "model: head='softmax' is the paper's one-class network"),
        ("data: {validation: 0.9, test: 0.5}", "data: validation 0.9 and test 0.5 leave nothing to train on"),
        ("data: {folders: mine}", "data.folders: 'mine' was given; a list is needed"),
        ("training: {loss_weights: {bce: x}}", "training.loss_weights.bce: 'x' was given; a number is needed"),
        ("name: no", "name: False was given; a text is needed"),
        ("name: a b", "name: 'a b' was given; a name consists of letters"),
        ("- a\n- b", "a recipe is a mapping of settings, not ['a', 'b']"),
        ("", "a recipe is a mapping of settings, not None"),
        ("training: {", "not YAML"),
        ("a: 2001-99-99", "not YAML"),
        ("a: !!python/object:os.system x", "not YAML"),
        ("start: *nobody", "not YAML"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"mine\.yaml: ") as caught:
        recipes.read(path)
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_wrong_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {epochs: 0, batch_size: -1}\nnames: x")
    with pytest.raises(ValueError, match="epochs") as caught:
        recipes.read(path)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "training.epochs",
        "training.batch_size",
        "names",
    ]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ValueError, match=r"a\.yaml: not a text file in UTF-8"):
        recipes.read(tmp_path / "a.yaml")


@given(st.text(alphabet=st.sampled_from("[]{}:,-!&*|>'\"#?%@ \nabn0129.eE~"), max_size=30) | st.text(max_size=30))
def test_any_text_is_a_recipe_or_a_message(content: str) -> None:
    said = ""
    try:
        read: Recipe | None = recipes.parse(content, "text")
    except ValueError as error:
        read, said = None, str(error)
    assert isinstance(read, Recipe) or said.startswith("text: ")


@pytest.mark.parametrize("name", ["nothing.yaml", "blastocyst"])
def test_a_recipe_that_is_not_there_is_answered_with_those_that_ship(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}: no such recipe.*blastocyst-finetune, "):
        recipes.read(name)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    path = tmp_path / "sub" / "a.yml"
    elsewhere = tmp_path / "elsewhere"
    path.write_text(
        f"start: ../w.safetensors\nbackbone: b.safetensors\ndata: {{folders: [mine, {elsewhere}], embryo_table: t.csv}}"
    )
    read = recipes.read(path)
    assert [Path(f).resolve() for f in read.data.folders] == [tmp_path / "sub" / "mine", elsewhere]
    assert Path(read.data.embryo_table) == tmp_path / "sub" / "t.csv"
    assert Path(read.start).resolve() == tmp_path / "w.safetensors"
    assert Path(read.backbone) == tmp_path / "sub" / "b.safetensors"


@pytest.mark.parametrize("start", ["bundled", "imagenet", "random", "my-clinic"])
def test_words_and_models_of_the_library_are_no_paths(tmp_path: Path, start: str) -> None:
    (tmp_path / "a.yaml").write_text(f"start: {start}")
    assert recipes.read(tmp_path / "a.yaml").start == start


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_written_and_read_back(tmp_path: Path, name: str) -> None:
    recipe = recipes.read(name)
    assert recipes.read(recipes.write(tmp_path / "a.yaml", recipe)) == recipe
    assert yaml.safe_load((tmp_path / "a.yaml").read_text())["training"]["seed"] == 0  # also what is left as it is


RATES = st.floats(1e-12, 1)


@given(st.builds(TrainSettings, learning_rate=RATES, weight_decay=RATES, epochs=st.integers(1, 10**5)))
def test_numbers_come_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, training: TrainSettings) -> None:
    path = tmp_path_factory.getbasetemp() / "numbers.yaml"
    assert recipes.read(recipes.write(path, TINY.model_copy(update={"training": training}))).training == training


def test_changes_are_checked_like_a_file() -> None:
    changed = recipes.changed(TINY, {"training.epochs": 7, "name": "other"})
    assert (changed.training.epochs, changed.name, changed.training.batch_size) == (7, "other", 2)
    with pytest.raises(ValueError, match=r"command line: training\.epochs: 0 was given"):
        recipes.changed(TINY, {"training.epochs": 0}, "command line")


# --- the ones that ship ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["resanet", "unet"])
def test_the_protocol_of_the_papers_table_1(family: str) -> None:
    """S0, 4.1: 224 x 300, 85/15, Dice loss, Adam 1e-4, weight decay 1e-8, batches of 16, 100 epochs, one class each."""
    recipe = recipes.read(f"resanet-table1-{family}")
    seen, learned, data = recipe.preprocessing, recipe.training, recipe.data
    assert (seen.height, seen.width, seen.fit) == (224, 300, "stretch")
    assert (data.validation, data.test) == (0.15, 0)
    assert (learned.optimizer, learned.learning_rate, learned.weight_decay) == ("adam", 1e-4, 1e-8)
    assert (learned.batch_size, learned.epochs, learned.schedule) == (16, 100, "constant")
    assert (learned.loss_weights, learned.clip_norm, learned.encoder_rate) == ({"bce": 0}, 0, 1)
    assert (learned.patience, learned.parts, learned.frozen_batch_norm) == (0, "all", False)
    nothing = Augmentation(
        flips=False, rotation=0, zoom_out=1, zoom_in=1, shift=0, shear=0, crop=0, photometric=0, invert=0, wells=0
    )
    assert recipe.augmentation == nothing
    assert (recipe.model.family, len(recipe.model.classes)) == (family, 1)


def test_finetuning_starts_from_the_bundled_weights_and_is_gentle_with_their_encoder() -> None:
    recipe = recipes.read("blastocyst-finetune")
    assert (recipe.start, recipe.data.validation) == ("bundled", 0.25)
    assert 0 < recipe.training.encoder_rate < 1


def test_the_bundled_weights_come_with_their_network_and_size() -> None:
    try:
        info = checkpoint.read_info(checkpoint.bundled("resanet"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    started = recipes.with_start(recipes.read("blastocyst-finetune"))
    assert (started.recipe.model, started.recipe.preprocessing) == (info.model, info.preprocessing)
    assert len(started.notes) == 1
    anew = recipes.read("blastocyst-from-imagenet")
    assert anew.preprocessing == info.preprocessing
    assert anew.model.model_copy(update={"la_relu": info.model.la_relu}) == info.model  # the first ones had a dead ReLU


# --- the start ------------------------------------------------------------------------------------------------------


def test_a_checkpoint_brings_its_own_network_and_says_what_it_overrules(weights: Path) -> None:
    asked = TINY.model_copy(update={"start": str(weights), "preprocessing": Preprocessing(height=96, width=128)})
    started = recipes.with_start(asked)
    assert (started.recipe.model.classes, started.recipe.preprocessing.net_hw) == (("ZP", "ICM"), (40, 56))
    assert started.weights == weights
    first, *others = started.notes
    assert first.level == "info"
    assert "unet for ZP, ICM, 40 x 56 stretch" in first.text
    said = "ignored, because the starting weights have their own settings: preprocessing.height, preprocessing.width"
    assert others == [Note("warning", said)]


def test_weights_of_another_family_are_trained_as_what_they_are_and_it_is_said(weights: Path) -> None:
    started = recipes.with_start(TINY.model_copy(update={"start": str(weights), "model": ResANetSettings()}))
    assert started.recipe.model.family == "unet"
    said = "the starting weights are of the family unet: that is trained, not resanet as in the recipe"
    assert Note("warning", said) in started.notes


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"start": "imagenet"}, ValueError, "family unet"),
        ({"start": "imagenet", "model": ResANetSettings()}, ValueError, r"--backbone FILE.*torchvision.*v1\.5"),
        (
            {"start": "imagenet", "model": ResANetSettings(), "backbone": "no.safetensors"},
            FileNotFoundError,
            "no.safetensors: no such backbone",
        ),
        ({"start": "bundled"}, FileNotFoundError, "no bundled weights of 'unet'"),
        ({"start": "my-clinic"}, FileNotFoundError, "my-clinic: no such checkpoint"),
        ({"data": DataSettings()}, ValueError, "names no folder"),
        ({"data": DataSettings(folders=("/nowhere",))}, FileNotFoundError, "nowhere"),
    ],
)
def test_a_start_or_data_that_are_not_there(
    tiny: Recipe, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        recipes.prepare(tiny.model_copy(update=changes))


@pytest.mark.parametrize("content", [b"", b"\x80\x02pickle", b"garbage" * 20])
def test_a_broken_start_is_explained(tiny: Recipe, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.safetensors").write_bytes(content)
    with pytest.raises(checkpoint.CheckpointError, match=r"broken\.safetensors"):
        recipes.prepare(tiny.model_copy(update={"start": str(tmp_path / "broken.safetensors")}))


def test_a_broken_backbone_is_explained_before_anything_is_written(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "r50.safetensors").write_bytes(b"half")
    changes = {"start": "imagenet", "backbone": str(tmp_path / "r50.safetensors"), "model": ResANetSettings()}
    prepared = recipes.prepare(tiny.model_copy(update=changes))
    with pytest.raises(ValueError, match=r"r50\.safetensors: incomplete or invalid safetensors file"):
        next(recipes.run(prepared, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_training_begins_with_the_weights_asked_for(tiny: Recipe, weights: Path, tmp_path: Path) -> None:
    started = recipes.prepare(tiny.model_copy(update={"start": str(weights)}))
    run = recipes.run(started, tmp_path)
    next(run)  # the files as they were before the first step are there
    expected = checkpoint.load(weights).model.state_dict()
    run.close()
    first, _ = recipes.first_model(started.started)
    assert all(torch.equal(expected[name], tensor) for name, tensor in first.state_dict().items())


def started_from(path: Path, embryos: Any, tiny: Recipe) -> recipes.Prepared:
    """Prepared to go on from weights that say this of their embryos."""
    said = {} if embryos is None else {"embryos": embryos}
    info = checkpoint.CheckpointInfo(model=tiny.model, preprocessing=tiny.preprocessing, provenance=said)
    checkpoint.save(path, models.build(tiny.model), info)
    return recipes.prepare(recipes.changed(tiny, {"start": str(path), "data.validation": 0.5}))


@pytest.mark.parametrize(
    ("learned", "aside", "note"),
    [
        (range(1), range(1, 3), "validation embryos also held out from the starting weights: 2 of 4"),
        (range(5), range(5, 6), "validation embryos also held out from the starting weights: 1 of 1"),
        (
            range(6),
            (),
            "validation embryos also held out from the starting weights: 0 of 3; these were trained on 3 of them, "
            "whose scores are too good",
        ),
    ],
)
def test_what_the_start_kept_aside_stays_aside_and_is_told(
    tiny: Recipe, tmp_path: Path, learned: range, aside: range, note: str
) -> None:
    parts = {"train": learned, "validation": aside}
    listed = {part: [data.digest(f"drawn{i}") for i in numbers] for part, numbers in parts.items()}
    prepared = started_from(tmp_path / "w.safetensors", listed, tiny)
    assert prepared.notes[-1] == Note("warning" if len(learned) == 6 else "info", note)
    judging = {s.embryo for s in prepared.split.validation}
    assert {f"drawn{i}" for i in aside} <= judging
    assert len(learned) == 6 or judging.isdisjoint(f"drawn{i}" for i in learned)


@pytest.mark.parametrize("embryos", [None, {}, {"train": []}, {"train": ["0" * 16]}, ["?"]])
def test_a_start_that_lists_none_of_these_embryos_changes_nothing(tiny: Recipe, tmp_path: Path, embryos: Any) -> None:
    prepared = started_from(tmp_path / "w.safetensors", embryos, tiny)
    plain = recipes.prepare(recipes.changed(tiny, {"data.validation": 0.5}))
    assert [s.name for s in prepared.split.validation] == [s.name for s in plain.split.validation]
    assert len(prepared.notes) == 1


def test_a_table_of_ratios_alone_is_refused_by_a_network_that_learns_masks(tiny: Recipe, tmp_path: Path) -> None:
    for name in "abc":
        io.write_png(tmp_path / f"{name}.png", np.full((20, 30), 90, np.uint8))
    (tmp_path / "t.csv").write_text("image,ratio\na,0.1\nb,0.2\nc,0.3\n")
    with pytest.raises(ValueError, match="no image there has an annotated fragment; unet learns from annotated"):
        recipes.prepare(recipes.changed(tiny, {"model.classes": ["fragment"], "data.folders": [str(tmp_path)]}))


def test_an_inception_is_told_to_draw_nothing() -> None:
    notes = recipes.with_start(recipes.read("regdeeplab-inception")).notes
    assert any("draws no masks" in note.text and "Segment" in note.text for note in notes)
    assert not any("draws no masks" in note.text for note in recipes.with_start(TINY).notes)


# --- the shape code -------------------------------------------------------------------------------------------------

SMALL_CODE = ShapeCodeSettings(codes=16, dimension=8, grid=2)
DETECTOR = TINY.model_copy(update={"model": VQAmodalSettings()})


def saved(path: Path, settings: Any, **provenance: Any) -> Path:
    torch.manual_seed(7)
    info = checkpoint.CheckpointInfo(model=settings, preprocessing=Preprocessing(), provenance=provenance)
    checkpoint.save(path, models.build(settings), info)
    return path


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("codes")
    return {
        "code": saved(folder / "shapes.safetensors", SMALL_CODE, embryos={"train": ["a" * 16], "validation": []}),
        "detector": saved(folder / "detector.safetensors", VQAmodalSettings(shape=SMALL_CODE)),
        "fcn": saved(folder / "fcn.safetensors", VQAmodalSettings(head="fcn")),
    }


@pytest.mark.parametrize("kind", ["code", "detector"])
def test_a_detector_draws_with_the_shape_code_that_is_named(codes: dict[str, Path], kind: str) -> None:
    """With its sizes and its weights, whichever file they come in; told by name and digest, never by path."""
    asked = recipes.changed(DETECTOR, {"shape_code": str(codes[kind])})
    started = recipes.with_start(asked)
    assert started.recipe.model.shape == SMALL_CODE
    assert started.shape_code == codes[kind]
    assert "2 x 2 of 16 codes" in started.notes[-1].text
    model, start = recipes.first_model(started)
    loaded = checkpoint.load(codes[kind]).model
    expected = (loaded.get_submodule("shape") if kind == "detector" else loaded).state_dict()
    found = model.get_submodule("shape").state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert start["weights"] == "random"
    assert (start["shape_code"], start["shape_code_sha256"]) == (
        codes[kind].name, checkpoint.file_sha256(codes[kind]),
    )  # fmt: skip


def test_what_the_shape_code_learned_from_is_kept_from_judging(codes: dict[str, Path]) -> None:
    asked = recipes.changed(DETECTOR, {"shape_code": str(codes["code"])})
    assert recipes.with_start(asked).parts() == {"a" * 16: "train"}


def test_a_model_of_the_library_is_a_shape_code_too(codes: dict[str, Path]) -> None:
    library.add_to_library(codes["code"], "my-shapes")
    started = recipes.with_start(recipes.changed(DETECTOR, {"shape_code": "my-shapes"}))
    assert started.recipe.model.shape == SMALL_CODE


def test_without_a_shape_code_it_is_told_how_to_train_one() -> None:
    try:
        checkpoint.bundled("vqamodal")
    except FileNotFoundError:
        with pytest.raises(FileNotFoundError, match="napari-embryo train shapecode --data FOLDER --name my-shapes"):
            recipes.with_start(DETECTOR)
    with pytest.raises(FileNotFoundError, match=r"shape_code: nowhere: no such checkpoint.*train one with"):
        recipes.with_start(recipes.changed(DETECTOR, {"shape_code": "nowhere"}))


@pytest.mark.parametrize(
    ("named", "start", "says"),
    [
        ("fcn", "random", "family vqamodal and has no shape code; train one"),
        ("unet", "random", "family unet and has no shape code; train one"),
        (
            "code",
            "other",
            "2 x 2 of 16 codes on 32 x 32 pixels, but the starting weights need 4 x 4 of 128 codes.*leave shape_code "
            "empty",
        ),
    ],
)
def test_a_shape_code_that_does_not_fit_is_refused(
    codes: dict[str, Path], weights: Path, tmp_path: Path, named: str, start: str, says: str
) -> None:
    if start == "other":
        start = str(saved(tmp_path / "other.safetensors", VQAmodalSettings()))
    path = weights if named == "unet" else codes[named]
    with pytest.raises(ValueError, match=says):
        recipes.with_start(recipes.changed(DETECTOR, {"shape_code": str(path), "start": start}))


def test_a_start_brings_its_own_shape_code_and_fcn_needs_none(codes: dict[str, Path]) -> None:
    started = recipes.with_start(recipes.changed(DETECTOR, {"start": str(codes["detector"])}))
    assert started.recipe.model.shape == SMALL_CODE
    model, start = recipes.first_model(started)
    expected = checkpoint.load(codes["detector"]).model.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in model.state_dict().items())
    assert "shape_code" not in start
    recipes.with_start(recipes.changed(DETECTOR, {"model.head": "fcn"}))


def test_an_imagenet_encoder_is_put_into_a_detector(imagenet_backbone: Path) -> None:
    asked = recipes.changed(recipes.read("vqamodal-fcn"), {"backbone": str(imagenet_backbone)})
    model, start = recipes.first_model(recipes.with_start(asked))
    first = load_file(imagenet_backbone)["conv1.weight"].float()
    assert torch.equal(model.get_parameter("encoder.trunk.conv1.weight"), first)
    assert start["weights"].startswith("imagenet: ")


@pytest.mark.parametrize("family", ["shapecode", "vqamodal"])
def test_a_report_of_cells_counts_cells(tmp_path: Path, family: str) -> None:
    draw_cleavages(tmp_path / "drawn", 4, (64, 64))
    model = {"family": family, **({"head": "fcn"} if family == "vqamodal" else {})}
    asked = recipes.changed(TINY, {"model": model, "data.folders": [str(tmp_path / "drawn")]})
    prepared = recipes.prepare(asked)
    counted = sum(row["cells"] for row in prepared.report.rows)
    assert counted == sum(len(s.read().cells) for s in prepared.found.samples) > 0
    assert not any(key.startswith("known") for key in prepared.report.rows[0])


# --- a run ----------------------------------------------------------------------------------------------------------


def finish(run: Any) -> stream.Finished:
    try:
        while True:
            next(run)
    except StopIteration as end:
        outcome: stream.Finished = end.value
        return outcome


def test_a_run_keeps_its_papers_and_its_weights_say_where_they_come_from(tiny: Recipe, tmp_path: Path) -> None:
    prepared = recipes.prepare(tiny)
    outcome = finish(recipes.run(prepared, tmp_path / "out"))
    assert (outcome.epochs, outcome.reason) == (2, "finished")
    assert recipes.read(tmp_path / "out" / "recipe.yaml") == prepared.recipe
    with (tmp_path / "out" / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {r["image"] for r in rows if r["part"] == "validation"} == {s.name for s in prepared.split.validation}
    assert len(rows) == 6
    assert len(list(csv.DictReader((tmp_path / "out" / "report.csv").open(newline="")))) == len(prepared.report.rows)
    told = checkpoint.read_info(outcome.best).provenance
    assert told["start"] == {"weights": "random"}
    assert Recipe.model_validate(told["recipe"]).training == tiny.training
    assert told["program"].startswith("napari-embryo ")
    for part, side in prepared.split.parts.items():
        assert told["embryos"][part] == sorted(hashlib.sha256(s.embryo.encode()).hexdigest()[:16] for s in side)


def test_what_the_start_learned_from_is_handed_on(tiny: Recipe, tmp_path: Path) -> None:
    """Also of embryos that lie in other folders: these weights have learned from them, too."""
    listed = {"train": ["a" * 16, data.digest("drawn0")], "validation": ["b" * 16]}
    prepared = started_from(tmp_path / "w.safetensors", listed, tiny)
    told = recipes.provenance(prepared, {})["embryos"]
    assert "a" * 16 in told["train"]
    assert "b" * 16 in told["validation"]
    assert sum(map(len, told.values())) == 6 + 2


def test_weights_name_no_picture_and_no_path(tiny: Recipe, drawn: Path, tmp_path: Path) -> None:
    """File names in a clinic may be patient numbers, and models are sent to others."""
    outcome = finish(recipes.run(recipes.prepare(tiny), tmp_path / "out"))
    said = checkpoint.read_info(outcome.last).model_dump_json()
    assert "drawn" in said
    assert str(drawn.parent) not in said
    assert not any(f"drawn{i}" in said for i in range(6))


def test_where_the_weights_come_from_is_told_with_their_digest(tiny: Recipe, weights: Path) -> None:
    _, start = recipes.first_model(recipes.with_start(tiny.model_copy(update={"start": str(weights)})))
    assert start == {"weights": "two.safetensors", "sha256": checkpoint.file_sha256(weights)}


def test_a_folder_that_holds_a_training_is_refused(tiny: Recipe, tmp_path: Path) -> None:
    prepared = recipes.prepare(tiny)
    finish(recipes.run(prepared, tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(ValueError, match=r"already holds a training run.*--resume, or name another folder"):
        next(recipes.run(prepared, tmp_path))
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def test_a_file_in_the_place_of_the_folder(tiny: Recipe, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="a file of that name exists"):
        next(recipes.run(recipes.prepare(tiny), tmp_path / "out"))


def test_nothing_to_resume(tiny: Recipe, tmp_path: Path) -> None:
    """A folder where nothing was begun is a wrong name; one cut off before it could save begins anew, and says so."""
    prepared = recipes.prepare(tiny)
    with pytest.raises(FileNotFoundError, match="no training to resume"):
        finish(recipes.run(prepared, tmp_path / "wrong", resume=True))
    recipes.write(tmp_path / "recipe.yaml", prepared.recipe)
    run = recipes.run(prepared, tmp_path, resume=True)
    note = next(run).item
    assert note.level == "warning"
    assert "starts from the beginning" in note.text
    assert finish(run).epochs == 2


def test_resuming_with_another_recipe_is_refused_and_keeps_the_first_one(tiny: Recipe, tmp_path: Path) -> None:
    finish(recipes.run(recipes.prepare(tiny), tmp_path))
    other = recipes.changed(tiny, {"training.learning_rate": 0.5})
    with pytest.raises(ValueError, match="learning_rate"):
        finish(recipes.run(recipes.prepare(other), tmp_path, resume=True))
    assert recipes.read(tmp_path / "recipe.yaml") == tiny


def test_resuming_keeps_the_recipe_up_to_date_with_what_may_change(tiny: Recipe, tmp_path: Path) -> None:
    start = recipes.run(recipes.prepare(tiny), tmp_path)
    list(islice(start, 4))
    start.close()
    patient = recipes.changed(tiny, {"training.patience": 7})
    assert finish(recipes.run(recipes.prepare(patient), tmp_path, resume=True)).epochs == 2
    assert recipes.read(tmp_path / "recipe.yaml") == patient


def closed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    list(islice(run, 4))
    run.close()


def diverged(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, steps = models.NETWORKS["unet"].loss, []

    def loss(outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        nonlocal steps
        steps += [1] if outputs["logits"].requires_grad else []
        return {name: value * (float("nan") if len(steps) > 3 else 1) for name, value in real(outputs, targets).items()}

    monkeypatch.setitem(models.NETWORKS, "unet", replace(models.NETWORKS["unet"], loss=loss))
    with pytest.raises(FloatingPointError):
        list(run)


@pytest.mark.parametrize("end", [closed, diverged])
def test_a_run_that_ended_early_leaves_a_folder_of_use(
    tiny: Recipe, tmp_path: Path, end: Callable[[Any, pytest.MonkeyPatch], None]
) -> None:
    """5 pictures in batches of 2: two steps an epoch; it ends in the second one."""
    prepared = recipes.prepare(tiny)
    with pytest.MonkeyPatch.context() as patch:
        end(recipes.run(prepared, tmp_path / "out"), patch)
    outcome = train.stopped(tmp_path / "out")
    assert (outcome.epochs, outcome.best_epoch, outcome.reason) == (1, 1, "stopped")
    for path in (outcome.best, outcome.last):
        assert checkpoint.load(path).info.model == tiny.model
    assert not list((tmp_path / "out").glob("*.part"))
    assert finish(recipes.run(prepared, tmp_path / "out", resume=True)).epochs == 2


def test_classes_are_those_of_the_network(tiny: Recipe) -> None:
    prepared = recipes.prepare(recipes.changed(tiny, {"model.classes": ["ZP"]}))
    assert prepared.found.samples[0].read().masks.shape[0] == 1
    assert [key for key in prepared.report.rows[0] if key.startswith("known")] == ["known ZP"]
    assert recipes.prepare(tiny).recipe.model.classes == BLASTOCYST_CLASSES


# --- texts that expand or nest without bounds -----------------------------------------------------------------------

LAUGHS = "\n".join(
    [f"a0: &a0 [{', '.join('x' * 9)}]", *[f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]]
)
MERGES = "\n".join(["a0: &a0 {x: 1}", *[f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 40)]])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (f"{LAUGHS}\nname: *a9\n", "expand to 8.34e\\+09 values; write the settings out without aliases"),
        (MERGES, "expand to .* values"),
        ("data: &a [*a]", "refers to something that contains it"),
        ("data: " + "[" * 25 + "]" * 25, "nested 2. levels deep"),
        ("data: " + "[" * 50_000, "nested too deeply"),
        ("\n".join(" " * i + "a:" for i in range(300)), "levels deep"),
        ("#" * 200_000, "it has 200000 characters"),
    ],
)
def test_a_text_that_expands_or_nests_without_bounds_is_refused(content: str, reason: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ValueError, match=f"not YAML that can be read .*{reason}"):
        files.parse(content, "r.yaml")
    assert time.perf_counter() - began < 5


def test_a_few_aliases_are_read() -> None:
    recipe = files.parse("training: {epochs: &n 3, patience: *n}", "r.yaml")
    assert (recipe.training.epochs, recipe.training.patience) == (3, 3)


@pytest.mark.parametrize(
    "content",
    [
        "training: {epochs: 1.5}", "training: {epochs: .inf}", "training: {learning_rate: .nan}",
        "training: {optimizer: sgd}", "augmentation: {flips: perhaps}", "training: []", "data: {repeats: [1]}",
        "data: {repeats: {a: b}}", "model: {family: resanet, classes: []}", "model: 3", "1: 2",
        "preprocessing: {height: {}}",
        "model: {family: shapecode, classes: [a, b]}", "training: {learning_rate: 0}", "training: {learning_rate: 9}",
        "name: ''", "data: {folders: [1]}", "training: {warm_up: 1}",
    ],
)  # fmt: skip
def test_no_word_of_the_library_that_checks_settings_is_shown(content: str) -> None:
    with pytest.raises(ValueError, match=r"r\.yaml: ") as refusal:
        files.parse(content, "r.yaml")
    said = str(refusal.value)
    for word in ("input should", "Input should", "pydantic", "valid ", "another kind", "errors.", "came"):
        assert word not in said
    assert "needed" in said or "name consists" in said or "no such setting" in said
