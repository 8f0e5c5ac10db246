"""RegDeepLab's table: its experiments as recipes, D upon A, and numbers beside those that were published."""

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score, mean_absolute_error
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from napari_embryo import io, models, recipes, reproduce
from napari_embryo.data import Sample
from napari_embryo.families import FRAGMENT_CLASSES, InceptionSettings, RegDeepLabSettings
from napari_embryo.models import checkpoint, encoder
from napari_embryo.models import regdeeplab as family
from napari_embryo.reproduce import Job, regdeeplab
from napari_embryo.settings import Preprocessing

FOLDERS = ["/pictures"]


def drain(run: Any) -> pd.DataFrame:
    try:
        while True:
            next(run)
    except StopIteration as end:
        scores: pd.DataFrame = end.value
        return scores


# --- the paper ------------------------------------------------------------------------------------------------------

MASKS, RATIO = ("bce", "dice", "focal", "embryo"), ("precise", "ratio_bce", "range")
EXPERIMENTS = {  # gate, regression, injection, losses, what learns, rate, epochs
    "DeepLabV3+": (False, False, "none", MASKS, "all", 1e-4, 100),
    "A": (True, False, "none", (*MASKS, "consistency"), "all", 1e-4, 100),
    "B": (True, True, "none", RATIO, "all", 1e-4, 100),
    "C": (True, True, "1x1", (*MASKS, "consistency", *RATIO), "all", 1e-4, 100),
    "D": (True, True, "none", RATIO, "regression", 1e-5, 50),
    "D'": (True, True, "1x1", (*MASKS, "consistency", *RATIO), "head", 1e-5, 50),
    "E": (True, True, "none", (*MASKS, "consistency", *RATIO), "all", 1e-4, 100),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_experiments_differ_in_what_the_paper_says(name: str) -> None:
    recipe = recipes.read(regdeeplab.NETWORKS[name])
    gate, regression, inject, losses, parts, rate, epochs = EXPERIMENTS[name]
    assert recipe.model == RegDeepLabSettings(gate=gate, regression=regression, inject=inject)
    learned = recipe.training
    weights = {each: learned.loss_weights.get(each, 1.0) for each in (*MASKS, "consistency", *RATIO)}
    assert {each for each, weight in weights.items() if weight} == set(losses)
    assert {weights["range"], weights["ratio_bce"]} == ({0.5, 0.1} if "range" in losses else {0})
    assert (learned.parts, learned.learning_rate, learned.epochs) == (parts, rate, epochs)
    assert (learned.optimizer, learned.clip_norm, learned.encoder_rate, learned.regression_rate) == ("adam", 1, 1, 1)
    assert recipe.preprocessing.net_hw == (512, 512)
    assert recipe.start == ("regdeeplab-a" if name in ("D", "D'") else "imagenet")


def test_nothing_cuts_off_a_part_of_the_embryo_and_all_are_split_alike() -> None:
    read = [recipes.read(name) for name in regdeeplab.NETWORKS.values()]
    assert all(recipe.data == read[0].data for recipe in read)
    for recipe in read:
        altered = recipe.augmentation
        assert (altered.zoom_in, altered.zoom_out, altered.shift, altered.shear, altered.crop, altered.wells) == (
            (1, 1) + (0,) * 4
        )
        assert recipe.preprocessing.look_again_below == 0


def test_d_starts_from_as_last_weights_with_or_without_imagenet(tmp_path: Path) -> None:
    jobs = reproduce.protocol("regdeeplab-table2", FOLDERS, tmp_path)
    (tmp_path / "r50.safetensors").touch()
    pretrained = reproduce.from_imagenet(jobs, tmp_path / "r50.safetensors", "v1")
    for changed, start in ((jobs, "random"), (pretrained, "imagenet")):
        by_name = {job.network: job for job in changed}
        assert list(by_name).index("A") < list(by_name).index("D")
        last = str(by_name["A"].out / "last.safetensors")
        starts = {name: job.recipe.start for name, job in by_name.items()}
        assert (starts["D"], starts["D'"]) == (last, last)
        assert {starts[name] for name in ("DeepLabV3+", "A", "B", "C", "E")} == {start}
        assert {starts[name] for name in ("Inception-v3", "LBP + MLP", "GLCM + MLP")} == {"random"}
        encoders = {job.recipe.model.encoder for job in changed if hasattr(job.recipe.model, "encoder")}
        assert encoders == {"v1" if start == "imagenet" else "v1.5"}
    assert len({job.out for job in jobs}) == len(jobs) == 10


# --- scores ---------------------------------------------------------------------------------------------------------


def test_a_network_that_draws_nothing_has_a_ratio_and_no_dice() -> None:
    settings = InceptionSettings()
    info = checkpoint.CheckpointInfo(model=settings, preprocessing=Preprocessing(height=80, width=80))
    masks = np.zeros((2, 60, 70), bool)
    masks[0, 10:20, 10:20] = masks[1, 10:30, 10:30] = True
    sample = Sample.of("a", masks[1] * np.uint8(90), masks, embryo="e")
    loaded = checkpoint.Checkpoint(models.build(settings).eval(), info, "")
    (row,) = regdeeplab.score([sample], loaded, "cpu").to_dict("records")
    assert (row["ratio"], row["ratio_source"]) == (0.25, "mask")
    assert 0 < row["regressed"] < 1
    assert np.isnan(row["from_mask"])
    assert "dice" not in row


def scored(network: str, **columns: Any) -> pd.DataFrame:
    truth = pd.DataFrame(
        {
            "image": list("abcd"),
            "embryo": ["e1", "e1", "e2", "e3"],
            "source": "s",
            "ratio": [0.0, 0.05, 0.2, 0.6],
            "grade": list("AABD"),
            "usual": 0.04,
        }
    )
    none = dict.fromkeys(("regressed", "from_mask", "dice", "intersection", "found", "truth"), np.nan)
    return truth.assign(network=network, **{**none, **columns})


DRAWN = {
    "from_mask": [0.0, 0.1, 0.1, 0.7],
    "dice": [1.0, 0.5, 0.0, 0.9],
    "intersection": [0, 5, 0, 90],
    "found": [0, 10, 10, 100],
    "truth": [0, 10, 30, 100],
}


def test_the_table_has_ours_published_and_the_constant_beside_each_other() -> None:
    regressed = [0.02, 0.12, 0.3, 0.4]
    scores = pd.concat((scored("A", **DRAWN), scored("C", regressed=regressed, **DRAWN)), ignore_index=True)
    table = regdeeplab.table(scores).set_index("experiment")
    assert list(table.index) == [*regdeeplab.NETWORKS, "LBP + MLP", "GLCM + MLP", "constant median"]
    truth, ours = [0.0, 0.05, 0.2, 0.6], table.loc["C"]
    assert (ours["Dice"], ours["non-empty"]) == ("0.600", f"{1.4 / 3:.3f}")
    hits, false, missed = 95, 25, 45
    pooled = f1_score(*(np.repeat(which, (hits, false, missed)) for which in ((1, 0, 1), (1, 1, 0))))
    assert ours["pooled"] == f"{pooled:.3f}"
    assert ours["MAE"] == f"{mean_absolute_error(truth, regressed):.3f}"
    assert ours["MAE mask"] == table.loc["A", "MAE mask"] == f"{mean_absolute_error(truth, DRAWN['from_mask']):.3f}"
    constant = f"{mean_absolute_error(truth, [0.04] * 4):.3f}"
    assert {ours["MAE median"], table.loc["A", "MAE median"], table.loc["constant median", "MAE"]} == {constant}
    assert (ours["grades"], table.loc["A", "grades"]) == ("0.250", "0.750")  # A, B, C, C; and A, B, B, D
    assert table.loc["A", "MAE"] == table.loc["D", "Dice"] == ""
    published = {name: tuple(row) for name, row in table[["published Dice", "published MAE"]].iterrows()}
    assert {name: published[name] for name in "ABCDE"} == {
        "A": ("0.729", ""),
        "B": ("", "0.051"),
        "C": ("0.716", "0.046"),
        "D": ("0.729", "0.049"),
        "E": ("0.678", "0.053"),
    }


# --- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same networks, narrower and less deep, on fewer pictures."""

    def shallow(weights: None, replace_stride_with_dilation: list[bool]) -> nn.Module:
        return ResNet(Bottleneck, [1, 1, 1, 1], replace_stride_with_dilation=replace_stride_with_dilation)

    monkeypatch.setattr(encoder, "resnet50", shallow)
    for name, width in (("WIDTH", 16), ("LOW", 8), ("VECTOR", 32)):
        monkeypatch.setattr(family, name, width)
    monkeypatch.setattr(regdeeplab, "FAST_PICTURES", 8)
    monkeypatch.setattr(regdeeplab, "NETWORKS", {name: regdeeplab.NETWORKS[name] for name in EXPERIMENTS})
    few = {"training.epochs": 1, "training.batch_size": 3, "training.learning_rate": 1e-2}
    monkeypatch.setattr(regdeeplab, "_FAST", few)
    monkeypatch.setattr(regdeeplab, "_FAST_SIZES", {"regdeeplab": 48})


def logits(job: Job, pictures: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        outputs: dict[str, torch.Tensor] = checkpoint.load(job.out / "last.safetensors").model(pictures)
    return outputs["logits"]


@pytest.mark.usefixtures("_tiny")
def test_from_drawn_embryos_to_the_table_with_ds_masks_as_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    textures = {"LBP + MLP", "GLCM + MLP"}
    jobs = {job.network: job for job in protocol(tmp_path)}
    scores = drain(reproduce.run(tuple(jobs.values())))
    assert set(scores["network"]) == {*EXPERIMENTS, *textures}

    pictures = torch.randn(2, 1, 48, 56, generator=torch.Generator().manual_seed(0))
    masks = {name: logits(jobs[name], pictures) for name in ("A", "D", "D'")}
    assert torch.equal(masks["A"], masks["D"])
    assert not torch.equal(masks["A"], masks["D'"])
    kept = {name: checkpoint.load(jobs[name].out / "last.safetensors").model.state_dict() for name in masks}
    assert all(torch.equal(tensor, kept["D"][name]) for name, tensor in kept["A"].items())
    frozen = {name for name in kept["A"] if not name.startswith("head.")}
    assert all(torch.equal(kept["A"][name], kept["D'"][name]) for name in frozen)
    regressed = scores[scores["network"] == "D"]["regressed"]
    assert (regressed - scores["usual"].iloc[0]).abs().max() > 0  # it learned something
    for column in ("dice", "from_mask"):
        by_name = {name: rows[column].tolist() for name, rows in scores.groupby("network")}
        assert by_name["A"] == by_name["D"]
        assert np.isnan(by_name["B"]).all()

    prepared = recipes.prepare(jobs["C"].recipe)
    learned = [prepared.found.contents[sample].ratio for sample in prepared.split.train]
    assert scores["usual"].tolist() == pytest.approx([median(learned)] * len(scores))

    monkeypatch.setattr(recipes, "run", None)  # training again would fail
    again = drain(reproduce.run(tuple(jobs.values())))
    pd.testing.assert_frame_equal(regdeeplab.table(again), regdeeplab.table(scores))
    filled = regdeeplab.table(again).set_index("experiment")
    assert (filled.loc[[*EXPERIMENTS, *textures], "MAE median"] != "").all()
    assert (filled.loc[["B", "C", "D", "D'", "E", *textures, "constant median"], "MAE"] != "").all()


def protocol(out: Path) -> tuple[Job, ...]:
    return reproduce.protocol("regdeeplab-table2", [], out, fast=True, device="cpu")


@pytest.mark.usefixtures("_tiny")
def test_textures_without_an_outline_to_learn_from_answer_nothing(tmp_path: Path) -> None:
    """A table of grades teaches the networks' ratio, but has no embryo to take a texture of; one outline is too few."""
    drawn = regdeeplab.draw(tmp_path / "drawn")
    (drawn / "annotations.json").unlink()
    names = sorted(path.name for path in (drawn / "images").iterdir())
    io.write_png(drawn / "m.png", np.pad(np.full((60, 60), 255, np.uint8), 18))
    masks = ["m.png,m.png", *[","] * 7]
    rows = [f"{name},{grade},{mask}" for name, grade, mask in zip(names, "ABCDABCD", masks, strict=True)]
    (drawn / "grades.csv").write_text("\n".join(("image,grade,fragment_mask,embryo_mask", *rows)))
    jobs = reproduce.protocol("regdeeplab-table2", [str(drawn)], tmp_path / "out", device="cpu")
    scores = drain(reproduce.run(jobs[-1:]))
    assert scores["regressed"].isna().all()
    assert regdeeplab.table(scores).set_index("experiment").loc["GLCM + MLP", "MAE"] == ""


def test_classes_are_those_of_the_ratio() -> None:
    for name in regdeeplab.NETWORKS.values():
        assert recipes.read(name).model.classes == FRAGMENT_CLASSES
