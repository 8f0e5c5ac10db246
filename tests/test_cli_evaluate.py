"""Scores and reproductions from the command line."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from torch import Tensor, nn
from typer.testing import CliRunner

from napari_embryo import cli, data, drawing, evaluate, io, models, recipes, reproduce
from napari_embryo.families import FRAGMENT_CLASSES, RegDeepLabSettings, ShapeCodeSettings, UNetSettings
from napari_embryo.models import checkpoint
from napari_embryo.predict import Predictor
from napari_embryo.reproduce import resanet
from napari_embryo.settings import DataSettings, Preprocessing, Recipe, SegmentSettings

TINY = UNetSettings(base_channels=4)
PRE = Preprocessing(height=48, width=64)


@pytest.fixture(autouse=True)
def _own_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAPARI_EMBRYO_MODELS", str(tmp_path / "shelf"))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce.draw_embryos(tmp_path_factory.mktemp("data") / "drawn", 8, (64, 80))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return reproduce.draw_embryos(tmp_path_factory.mktemp("data") / "elsewhere", 3, (64, 80))


def saved(path: Path, provenance: dict[str, object]) -> Path:
    torch.manual_seed(0)
    checkpoint.save(
        path, models.build(TINY), checkpoint.CheckpointInfo(model=TINY, preprocessing=PRE, provenance=provenance)
    )
    return path


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Weights that say they were trained on a folder ``drawn``, a quarter kept aside to validate, a quarter to test."""
    recipe = Recipe(data=DataSettings(folders=("drawn",), validation=0.25, test=0.25, seed=3))
    return saved(tmp_path / "trained.safetensors", {"recipe": recipe.model_dump(mode="json")})


def run(*words: object) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def scored(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_and_the_csv_are_those_of_the_metrics(trained: Path, drawn: Path, tmp_path: Path) -> None:
    words = ("--weights", trained, "--data", drawn, "--split", "all", "--device", "cpu")
    done = run("evaluate", *words, "--out", tmp_path / "new" / "s.csv")
    assert done.exit_code == 0, done.output
    predictor = Predictor(checkpoint.load(trained), SegmentSettings(device="cpu", maps=()))
    samples = data.find_samples(DataSettings(folders=(str(drawn),)), predictor.classes).samples
    expected = evaluate.score(samples, lambda image: next(predictor.predict([image])).finding.masks, predictor.classes)
    written = pd.read_csv(tmp_path / "new" / "s.csv")
    pd.testing.assert_frame_equal(written, expected, check_dtype=False)
    for row in evaluate.summary(expected, ["class"]).to_dict("records"):
        (line,) = [text for text in done.output.splitlines() if text.split()[:1] == [row["class"]]]
        assert line.split()[2:] == [
            "8",
            "8",
            f"{row['iou']:.3f}",
            f"{row['iou_low']:.3f}-{row['iou_high']:.3f}",
            f"{row['iou_pooled']:.3f}",
            f"{row['dice']:.3f}",
            f"{row['dice_pooled']:.3f}",
        ]


@pytest.mark.parametrize(("part", "count"), [(None, 2), ("validation", 2), ("test", 2), ("train", 4), ("all", 8)])
def test_the_split_of_the_training_is_made_again(
    trained: Path, drawn: Path, tmp_path: Path, part: str | None, count: int
) -> None:
    """And what was learned from is not scored where nobody asks for it."""
    words = () if part is None else ("--split", part)
    out = tmp_path / "s.csv"
    done = run("evaluate", "--weights", trained, "--data", drawn, "--device", "cpu", "--out", out, *words)
    assert done.exit_code == 0, done.output
    settings = DataSettings(folders=(str(drawn),), validation=0.25, test=0.25, seed=3)
    found = data.find_samples(settings, TINY.classes).samples
    parts = {**data.split(found, settings).parts, "all": found}
    assert {row["image"] for row in scored(out)} == {s.name for s in parts[part or "validation"]}
    assert f"{part or 'validation'}: {count} of 8 images" in done.output


def test_other_folders_are_scored_as_a_whole_and_told(trained: Path, other: Path) -> None:
    done = run("evaluate", "--weights", trained, "--data", other, "--device", "cpu")
    assert "all: 3 of 3 images (trained on the folders drawn;" in done.output, done.output


def test_weights_that_do_not_say_what_they_were_trained_on(drawn: Path, tmp_path: Path) -> None:
    weights = saved(tmp_path / "w.safetensors", {})
    done = run("evaluate", "--weights", weights, "--data", drawn, "--device", "cpu")
    assert "8 of 8 images (the weights do not record" in done.output


@pytest.fixture
def strangers(other: Path, tmp_path: Path) -> Path:
    """The other folder, with embryos that are called otherwise, too."""
    folder = shutil.copytree(other, tmp_path / "strangers")
    for path in sorted(folder.rglob("drawn*")):
        path.rename(path.with_name(path.name.replace("drawn", "foreign")))
    return folder


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Weights without a recipe, such as the bundled ones, that list embryos of the folder ``drawn``."""
    numbers = {"train": range(5), "validation": range(5, 7), "test": range(7, 8)}
    embryos = {part: [data.digest(f"drawn{i}") for i in each] for part, each in numbers.items()}
    return saved(tmp_path / "listed.safetensors", {"embryos": embryos})


@pytest.mark.parametrize(
    ("part", "numbers"),
    [(None, (5, 6)), ("validation", (5, 6)), ("train", range(5)), ("test", (7,)), ("all", range(8))],
)
def test_the_embryos_that_the_weights_list_are_chosen_whatever_lies_beside_them(
    listed: Path, drawn: Path, tmp_path: Path, part: str | None, numbers: range
) -> None:
    """Under another folder's name, with a picture too few: neither moves an embryo to another part."""
    folder = shutil.copytree(drawn, tmp_path / "renamed")
    for path in folder.rglob("*drawn0*"):
        path.unlink()
    words, out = () if part is None else ("--split", part), tmp_path / "s.csv"
    done = run("evaluate", "--weights", listed, "--data", folder, "--device", "cpu", "--out", out, *words)
    assert done.exit_code == 0, done.output
    assert {row["image"] for row in scored(out)} == {f"drawn{i}" for i in numbers if i}
    if part is None:
        assert "validation: 2 of 7 images (the weights were trained on images of these" in done.output


def test_strangers_to_the_weights_are_scored_as_a_whole(listed: Path, strangers: Path) -> None:
    done = run("evaluate", "--weights", listed, "--data", strangers, "--device", "cpu")
    assert "all: 3 of 3 images (the weights were trained on none of these" in done.output, done.output


def test_embryos_are_told_as_in_training(drawn: Path, strangers: Path, tmp_path: Path) -> None:
    """By its pattern, also where a folder has none of such names."""
    recipe = Recipe(data=DataSettings(folders=("drawn",), embryo_pattern=r"^drawn(?P<embryo>\d)"))
    embryos = {"train": [data.digest("1")], "validation": [data.digest("2")]}
    weights = saved(tmp_path / "w.safetensors", {"recipe": recipe.model_dump(mode="json"), "embryos": embryos})
    out = tmp_path / "s.csv"
    done = run("evaluate", "--weights", weights, "--data", drawn, "--device", "cpu", "--out", out)
    assert {row["image"] for row in scored(out)} == {"drawn2"}, done.output
    done = run("evaluate", "--weights", weights, "--data", strangers, "--device", "cpu")
    assert "all: 3 of 3" in done.output, done.output


def test_one_folder_trained_on_among_others_is_not_scored_as_a_whole(trained: Path, drawn: Path, other: Path) -> None:
    done = run("evaluate", "--weights", trained, "--data", drawn, "--data", other, "--device", "cpu")
    assert "split again, because the weights list no embryos" in " ".join(done.output.split()), done.output
    assert "validation: " in done.output


def test_pictures_without_a_class_of_the_network_are_no_score(tmp_path: Path) -> None:
    settings = UNetSettings(base_channels=4, classes=("fragment",))
    info = checkpoint.CheckpointInfo(model=settings, preprocessing=PRE)
    checkpoint.save(tmp_path / "w.safetensors", models.build(settings), info)
    for name in "ab":
        (tmp_path / "graded").mkdir(exist_ok=True)
        io.write_png(tmp_path / "graded" / f"{name}.png", np.full((20, 30), 90, np.uint8))
    (tmp_path / "graded" / "t.csv").write_text("image,grade\na,A\nb,B\n")
    done = run("evaluate", "--weights", tmp_path / "w.safetensors", "--data", tmp_path / "graded", "--device", "cpu")
    assert done.exit_code == 2
    assert "none of fragment is annotated on the 2 images given" in " ".join(done.output.split())


def test_pictures_for_other_families_name_them(tmp_path: Path) -> None:
    folder = drawing.draw_cleavages(tmp_path / "drawn", 2, (64, 64), fragmentation=(0.2, 0.4))
    done = run("evaluate", "--weights", "bundled", "--data", folder, "--device", "cpu")
    assert done.exit_code == 2
    for words in (
        "none of ICM, TE, ZP",
        "fragments (--family regdeeplab) and cells (--family vqamodal); name the family",
    ):
        assert words in done.output
    only_cells = json.loads((folder / "annotations.json").read_text())
    only_cells["categories"] = [each for each in only_cells["categories"] if each["name"] == "cell"]
    (folder / "annotations.json").write_text(json.dumps(only_cells))
    done = run("evaluate", "--weights", "bundled", "--data", folder, "--device", "cpu")
    assert "These images have annotated cells (--family vqamodal); name the family" in done.output


def test_one_embryo_has_no_interval(trained: Path, other: Path, tmp_path: Path) -> None:
    names = ("drawn0", "drawn1", "drawn2")
    (tmp_path / "t.csv").write_text("image,embryo\n" + "".join(f"{name},mine\n" for name in names))
    words = ("--weights", trained, "--data", other, "--device", "cpu", "--split", "all")
    done = run("evaluate", *words, "--embryo-table", tmp_path / "t.csv")
    (line,) = [text.split() for text in done.output.splitlines() if text.startswith("ICM")]
    assert (line[2:4], len(line)) == (["3", "1"], 8)
    assert "nan" not in done.output


def test_several_folders_are_told_apart(trained: Path, drawn: Path, other: Path) -> None:
    done = run("evaluate", "--weights", trained, "--data", drawn, "--data", other, "--split", "all", "--device", "cpu")
    lines = [line.split()[:3] for line in done.output.splitlines() if line.startswith("ICM")]
    assert sorted(lines) == [["ICM", "all", "11"], ["ICM", "drawn", "8"], ["ICM", "elsewhere", "3"]]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--weights", "nobody"), "nobody: no such checkpoint"),
        (("--data", "/nowhere"), "nowhere"),
        (("--split", "some"), "some"),
        (("--threshold", "2"), "threshold"),
        (("--embryo-table", "/none.csv"), "none.csv"),
        (("--layout", "kins"), "no image there can be used"),
        (("--layout", "other"), "other"),
        (("--out", "scores.xlsx"), "--out scores.xlsx: a .csv file is written"),
    ],
)
def test_what_cannot_be_scored(trained: Path, drawn: Path, words: tuple[str, str], says: str) -> None:
    given = {"--weights": trained, "--data": drawn, "--device": "cpu", words[0]: words[1]}
    done = run("evaluate", *(word for pair in given.items() for word in pair))
    assert done.exit_code == 2
    assert says in done.output
    assert "Traceback" not in done.output


def test_what_is_skipped_or_could_be_read_otherwise_is_said(trained: Path, drawn: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawn, tmp_path / "drawn")
    (folder / "Images" / "drawn3.png").write_bytes(b"")
    (folder / "grades.csv").write_text("image,grade\ndrawn0,A\n")
    done = run("evaluate", "--weights", trained, "--data", folder, "--device", "cpu", "--split", "all")
    assert done.exit_code == 0, done.output
    for words in (
        "all: 7 of 7 images",
        f"{folder} looks like saeedi and grades; it is read as saeedi; set layout: grades (--layout grades)",
        "Skipped: 1",
        "drawn/drawn3: ",
    ):
        assert words in done.output, done.output
    said = run("evaluate", "--weights", trained, "--data", folder, "--device", "cpu", "--layout", "saeedi")
    assert "looks like" not in said.output


def test_one_picture_is_no_pictures(trained: Path, other: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(other, tmp_path / "one")
    for path in folder.rglob("drawn[12]*"):
        path.unlink()
    done = run("evaluate", "--weights", trained, "--data", folder, "--device", "cpu")
    assert "all: 1 of 1 image (" in done.output, done.output


def test_where_nothing_can_be_written_is_said_before_the_network_is_loaded(
    trained: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(checkpoint, "load", None)
    done = run("evaluate", "--weights", trained, "--data", drawn, "--out", tmp_path / "file" / "s.csv")
    assert done.exit_code == 2
    assert "file: this folder cannot be created (a file of that name exists); choose another one" in done.output, (
        done.output
    )
    done = run("reproduce", "resanet-table1", "--fast", "--out", tmp_path / "file" / "new")
    assert done.exit_code == 2
    assert f"this folder cannot be created ({tmp_path / 'file'} is a file); choose" in done.output, done.output


class Guess(nn.Module):
    """Half of every picture is embryo, a fifth of that fragments, and so does the ratio say."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = torch.full_like(images, -9).repeat(1, 2, 1, 1)
        logits[:, 0, :, :5], logits[:, 1, :, :25] = 9, 9
        return {"logits": logits, "ratio": torch.full_like(images[:, 0, 0, :1], -1.4)}


def test_ratios_are_written_beside_the_masks_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawing.draw_cleavages(tmp_path / "drawn", 3, (64, 64), fragmentation=(0.0, 0.4))
    pre = Preprocessing(height=50, width=50, look_again_below=0)
    info = checkpoint.CheckpointInfo(model=RegDeepLabSettings(), preprocessing=pre)
    loaded = checkpoint.Checkpoint(Guess(), info, "0123abcd")
    monkeypatch.setattr(checkpoint, "load", lambda *_: loaded)
    done = run("evaluate", "--weights", "w", "--data", folder, "--device", "cpu", "--out", tmp_path / "s.csv")
    assert done.exit_code == 0, done.output
    predictor = Predictor(loaded, SegmentSettings(device="cpu", maps=()))
    samples = data.find_samples(DataSettings(folders=(str(folder),)), FRAGMENT_CLASSES).samples
    expected = evaluate.score_ratios(samples, lambda image: next(predictor.predict([image])).finding)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "s_ratios.csv"), expected, check_dtype=False)
    assert {row["class"] for row in scored(tmp_path / "s.csv")} == set(FRAGMENT_CLASSES)


def test_a_shape_code_is_scored_by_what_it_draws_back(tmp_path: Path) -> None:
    """One row per cell; with the codes of each replaced by the first one, every cell is drawn alike."""
    drawing.draw_cleavages(tmp_path / "cells", 2, (64, 64))
    model = models.build(ShapeCodeSettings(codes=8, dimension=4))
    model.codebook.codes.copy_(torch.arange(8.0)[:, None].expand(8, 4) * 1e6 + 1e9)
    weights = tmp_path / "shapes.safetensors"
    checkpoint.save(weights, model, checkpoint.CheckpointInfo(model=model.settings, preprocessing=PRE))
    words = ("evaluate", "--weights", weights, "--data", tmp_path / "cells", "--out", tmp_path / "s.csv")
    done = run(*words)
    assert done.exit_code == 0, done.output
    rows = scored(tmp_path / "s.csv")
    pictures = data.find_samples(DataSettings(folders=(str(tmp_path / "cells"),)), ("cell",)).samples
    assert len(rows) == sum(len(picture.read().cells) for picture in pictures)
    line = next(line for line in done.output.splitlines() if line.split()[:1] == [str(len(rows))]).split()
    ious = np.array([float(row["iou"]) for row in rows])
    assert line == [str(len(rows)), "2", f"{ious.mean():.3f}", line[3], "12%", "1"]


def test_a_reproduction_prints_ours_beside_the_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resanet, "FAST_PICTURES", 4)
    few = {"preprocessing.height": 32, "preprocessing.width": 48, "training.epochs": 1, "training.batch_size": 3}
    monkeypatch.setattr(resanet, "_FAST", few)
    monkeypatch.setattr(resanet, "NETWORKS", {"U-Net": "resanet-table1-unet"})
    words = ("reproduce", "resanet-table1", "--fast", "--out", tmp_path / "out", "--device", "cpu")
    done = run(*words)
    assert done.exit_code == 0, done.output
    lines = {tuple(line.split()[:2]): line.split() for line in done.output.splitlines()}
    assert lines["U-Net", "ZP"][-2:] == ["79.10", "88.33"]
    assert len(lines["U-Net", "ZP"]) == 11, "all columns but the interval, which one embryo does not tell"
    assert lines["ResA-Net", "ZP"][2:] == ["86.87", "92.72"]
    assert "not reproduced" in done.output
    assert "small drawn embryos" in done.output
    assert len(scored(tmp_path / "out" / "table.csv")) == 24
    monkeypatch.setattr(recipes, "run", None)  # training again would fail
    assert run(*words).exit_code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("resanet-table1",), "--data"),
        (("table9", "--fast"), "resanet-table1"),
        (("resanet-table1", "--data", "/nowhere"), "nowhere"),
        (("resanet-table1", "--fast", "--backbone", "/no.safetensors"), "no.safetensors: no such backbone"),
    ],
)
def test_what_cannot_be_reproduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.setattr(resanet, "FAST_PICTURES", 1)
    done = run("reproduce", *words, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert says in done.output
