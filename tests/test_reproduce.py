"""ResA-Net's table: its protocol, its numbers, and a run that can be cut off anywhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from napari_embryo import recipes, reproduce
from napari_embryo.data import Sample
from napari_embryo.families import UNetSettings
from napari_embryo.models.checkpoint import Checkpoint, CheckpointInfo
from napari_embryo.reproduce import Job, resanet
from napari_embryo.reproduce.resanet import CLASSES, PUBLISHED
from napari_embryo.settings import Preprocessing


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Smaller still than --fast."""
    monkeypatch.setattr(resanet, "FAST_PICTURES", 6)
    few = {"preprocessing.height": 32, "preprocessing.width": 48, "training.epochs": 2, "training.batch_size": 2}
    monkeypatch.setattr(resanet, "_FAST", few)


def drain(run: Any) -> pd.DataFrame:
    try:
        while True:
            next(run)
    except StopIteration as end:
        scores: pd.DataFrame = end.value
        return scores


# --- the paper ------------------------------------------------------------------------------------------------------


def test_the_published_numbers_agree_with_each_other() -> None:
    """A slip in copying would break the means that are printed beside them, or U-Net's F1 = 2 IoU / (1 + IoU)."""
    for network, cells in PUBLISHED.items():
        assert np.mean([cells[name][0] for name in CLASSES]) == pytest.approx(cells["mean"][0], abs=0.011), network
    for name in CLASSES:
        iou, f1 = PUBLISHED["U-Net"][name]
        assert f1 == pytest.approx(200 * iou / (100 + iou), abs=0.1)


def test_six_networks_of_one_class_by_the_papers_protocol(tmp_path: Path) -> None:
    jobs = reproduce.protocol("resanet-table1", [str(tmp_path)], tmp_path / "out")
    assert [(job.network, *job.recipe.model.classes) for job in jobs] == [
        (network, name) for network in ("U-Net", "ResA-Net") for name in ("ZP", "TE", "ICM")
    ]
    assert len({job.out for job in jobs}) == 6
    for job in jobs:
        paper = recipes.read(resanet.NETWORKS[job.network])
        assert job.recipe.training == paper.training
        assert job.recipe.preprocessing.net_hw == (224, 300)
        assert job.recipe.data.folders == (str(tmp_path),)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("resanet-table2", ["x"]), "no table 'resanet-table2'; choose one of resanet-table1, regdeeplab-table2"),
        (("regdeeplab-table2", []), "no folder of annotated cleavage-stage embryos.*--data"),
        (("resanet-table1", []), "--data"),
        (("resanet-table1", ["x"], True), "either --fast or --data"),
    ],
)
def test_what_cannot_be_reproduced(tmp_path: Path, words: tuple[Any, ...], says: str) -> None:
    table, folders, *fast = words
    with pytest.raises(ValueError, match=says):
        reproduce.protocol(table, folders, tmp_path, *fast)


def test_imagenet_is_for_resanet_only(tmp_path: Path) -> None:
    jobs = reproduce.protocol("resanet-table1", ["x"], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"r50\.safetensors: no such backbone"):
        reproduce.from_imagenet(jobs, tmp_path / "r50.safetensors", "v1")
    (tmp_path / "r50.safetensors").touch()
    changed = reproduce.from_imagenet(jobs, tmp_path / "r50.safetensors", "v1")
    assert [job.recipe.start for job in changed] == ["random"] * 3 + ["imagenet"] * 3
    assert {getattr(job.recipe.model, "encoder", "v1") for job in changed} == {"v1"}


# --- scores ---------------------------------------------------------------------------------------------------------


class Bright(nn.Module):
    """Finds what is brighter than the middle."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": (x - x.amin((2, 3), True) - (x.amax((2, 3), True) - x.amin((2, 3), True)) / 2) * 50}


def checked(hw: tuple[int, int], mask: np.ndarray) -> pd.DataFrame:
    info = CheckpointInfo(
        model=UNetSettings(classes=("ZP",)), preprocessing=Preprocessing(height=hw[0], width=hw[1], fit="stretch")
    )
    sample = Sample.of("a", (mask * 200).astype(np.uint8), mask[None], embryo="e")
    return resanet.score([sample], Checkpoint(Bright(), info, ""), "cpu").set_index("size")


def test_a_perfect_network_scores_one_at_both_sizes() -> None:
    mask = np.zeros((48, 64), bool)
    mask[10:30, 20:50] = True
    scores = checked((48, 64), mask)
    assert scores["iou"].to_dict() == {"picture": 1, "net": 1}
    assert scores["truth"].to_dict() == {"picture": 600, "net": 600}
    assert checked((96, 192), mask)["truth"].to_dict() == {"picture": 600, "net": 3600}


def test_what_the_network_is_too_coarse_for_is_lost_at_the_pictures_size_only() -> None:
    """The mask at the network's size loses the same detail as the picture."""
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    mask[20:22, 34:36] = True
    scores = checked((32, 32), mask)
    assert scores.loc["net", "iou"] == 1
    assert 0.9 < scores.loc["picture", "iou"] <= 1


def test_the_table_tells_macro_from_micro_and_ours_from_theirs() -> None:
    both = {"network": "ResA-Net", "size": "picture", "source": "s", "dice": 0.5}
    rows = [
        {**both, "class": name, "image": i, "embryo": i, "iou": iou, "intersection": inter, "union": union}
        for name in CLASSES
        for i, iou, inter, union in (("a", 0.5, 1, 2), ("b", 0.75, 75, 100))
    ]
    scores = pd.concat((pd.DataFrame(rows), pd.DataFrame(rows).assign(size="net", iou=0.25)))
    table = resanet.table(scores).set_index(["network", "region"])
    assert len(table) == 6 * 4
    for name in (*CLASSES, "mean"):
        row = table.loc[("ResA-Net", name)]
        assert (row["IoU"], row["pooled"], row["net IoU"]) == ("62.50", f"{7600 / 102:.2f}", "25.00")
        assert table.loc[("U-Net", name), "IoU"] == table.loc[("FSBS-Net", name), "IoU"] == ""
    assert table.loc[("ResA-Net", "ZP"), "published IoU"] == "86.87"
    assert table.loc[("ResA-Net", "mean"), "published F1"] == ""


# --- a run ----------------------------------------------------------------------------------------------------------


def unets(out: Path) -> tuple[Job, ...]:
    """For TE and ICM, on embryos that are drawn."""
    return reproduce.protocol("resanet-table1", [], out, fast=True, device="cpu")[1:3]


def test_from_drawn_embryos_to_the_table_and_nothing_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = unets(tmp_path)
    steps = []
    run = reproduce.run(jobs)
    while True:
        try:
            steps.append(next(run))
        except StopIteration as end:
            scores = end.value
            break
    assert [(s.done, s.message.rpartition(" ")[0]) for s in steps if s.item is not None] == [
        (2, "U-Net TE: IoU"),
        (4, "U-Net ICM: IoU"),
    ]
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert set(zip(scores["network"], scores["class"], scores["size"], strict=True)) == {
        (network, name, size) for network, name in (("U-Net", "TE"), ("U-Net", "ICM")) for size in ("picture", "net")
    }
    assert scores["iou"].between(0, 1).all()
    assert not list(tmp_path.rglob("state.safetensors"))

    monkeypatch.setattr(recipes, "run", None)  # training again would fail
    again = drain(reproduce.run(jobs))
    pd.testing.assert_frame_equal(again, scores, check_dtype=False)
    assert resanet.table(again)["IoU"].astype(bool).sum() == 2


@pytest.mark.usefixtures("shallow")
def test_a_resanet_goes_through_too(tmp_path: Path) -> None:
    job = reproduce.protocol("resanet-table1", [], tmp_path, fast=True, device="cpu")[3]
    job = replace(job, recipe=recipes.changed(job.recipe, {"training.epochs": 1}))
    scores = drain(reproduce.run((job,)))
    assert set(scores["network"]) == {"ResA-Net"}
    assert job.recipe.model.model_dump(include={"family", "head", "classes"}) == {
        "family": "resanet",
        "head": "softmax",
        "classes": ("ZP",),
    }
    assert resanet.table(scores).set_index(["network", "region"]).loc[("ResA-Net", "ZP"), "IoU"] != ""


def test_a_run_cut_off_in_the_middle_goes_on(tmp_path: Path) -> None:
    job = unets(tmp_path)[0]
    run = reproduce.run((job,))
    for progress in run:
        if ": epoch 1: " in progress.message:
            break
    run.close()
    assert (job.out / "state.safetensors").is_file()
    assert not (job.out / "scores.csv").exists()
    rest = [step.done for step in reproduce.run((job,))]
    assert min(rest) >= 1
    assert (job.out / "scores.csv").is_file()


def test_scores_of_other_data_or_settings_are_not_taken_for_ours(tmp_path: Path) -> None:
    job = unets(tmp_path)[0]
    torch.manual_seed(0)
    drain(reproduce.run((job,)))
    other = replace(job, recipe=recipes.changed(job.recipe, {"training.epochs": 1}))
    with pytest.raises(ValueError, match="other settings or data"):
        next(reproduce.run((other,)))
    elsewhere = replace(job, recipe=recipes.changed(job.recipe, {"training.device": "auto"}))
    next(reproduce.run((elsewhere,)))  # where it is computed may change
