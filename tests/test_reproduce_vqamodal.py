"""The VQ shape-code paper's tables: what is compared, a run on drawn embryos, numbers beside those published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from napari_embryo import io, recipes, reproduce
from napari_embryo.models.vqamodal import roi_head, rpn
from napari_embryo.reproduce import Job, vqamodal
from napari_embryo.reproduce.vqamodal import ABLATION, CODES, FCN, FULL, REFINED, SHAPE_CODE, VQ

FOLDERS = ["/pictures"]


def by_name(table: str, out: Path, **how: Any) -> dict[str, Job]:
    jobs = reproduce.protocol(table, FOLDERS, out, **how)
    return {job.name: job for job in jobs}


# --- the protocol ---------------------------------------------------------------------------------------------------

NETWORKS = {  # head, refinement, occlusion
    "vqamodal-table1": [("fcn", False, "none"), ("vq", True, "branch")],
    "vqamodal-table2": [
        ("fcn", False, "none"), ("vq", True, "branch"), ("fcn", False, "asn"), ("vq", True, "asn"),
    ],
    "vqamodal-table3": [("vq", False, "none"), ("vq", True, "none"), ("vq", True, "branch")],
}  # fmt: skip


@pytest.mark.parametrize("table", NETWORKS)
def test_networks_differ_in_what_the_paper_compares_and_in_nothing_else(table: str, tmp_path: Path) -> None:
    first, *jobs = reproduce.protocol(table, FOLDERS, tmp_path)
    assert first.recipe.model.family == "shapecode"
    described: list[Any] = [job.recipe.model for job in jobs]
    assert [(each.head, each.refine, each.occlusion) for each in described] == NETWORKS[table]
    code = str(first.out / "last.safetensors")
    assert {job.recipe.shape_code for job in jobs if job.recipe.model.head == "vq"} == {code}  # type: ignore[union-attr]
    assert all(job.recipe.data == first.recipe.data for job in jobs)
    for part in ("preprocessing", "augmentation", "training"):
        assert len({getattr(job.recipe, part).model_dump_json() for job in jobs}) == 1, part


def test_tables_with_one_folder_share_what_is_the_same(tmp_path: Path) -> None:
    tables = [by_name(table, tmp_path) for table in NETWORKS]
    assert tables[0][VQ].out == tables[1][VQ].out == tables[2][FULL].out
    assert tables[0][VQ].recipe == tables[2][FULL].recipe
    assert len({job.out for table in tables for job in table.values()}) == 1 + 6


def test_statistics_are_kept_where_they_are_imagenets(tmp_path: Path) -> None:
    jobs = reproduce.protocol("vqamodal-table1", FOLDERS, tmp_path)
    assert not any(job.recipe.training.frozen_batch_norm for job in jobs)
    (tmp_path / "r50.safetensors").touch()
    pretrained = reproduce.from_imagenet(jobs, tmp_path / "r50.safetensors", "v1")
    told = {job.name: (job.recipe.start, job.recipe.training.frozen_batch_norm) for job in pretrained}
    assert told == {SHAPE_CODE: ("random", False), FCN: ("imagenet", True), VQ: ("imagenet", True)}


def test_more_seeds_and_a_shorter_schedule(tmp_path: Path) -> None:
    jobs = reproduce.protocol("vqamodal-table1", FOLDERS, tmp_path, seeds=2, epochs=3)
    assert [(job.name, job.recipe.training.seed) for job in jobs] == [
        *((name, 0) for name in (SHAPE_CODE, FCN, VQ)),
        *((f"{name}, seed 1", 1) for name in (SHAPE_CODE, FCN, VQ)),
    ]
    assert len({job.out for job in jobs}) == 6
    assert {job.recipe.data.seed for job in jobs} == {0}, "the same split"
    epochs = {job.network: job.recipe.training.epochs for job in jobs}
    assert epochs == {SHAPE_CODE: recipes.read("shapecode").training.epochs, FCN: 3, VQ: 3}
    assert Path(jobs[-1].recipe.shape_code).parent == jobs[3].out, "each draws with the shape code of its seed"


@pytest.mark.parametrize("table", ["resanet-table1", "regdeeplab-table2"])
def test_a_table_without_spread_takes_one_seed(table: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 seeds were given, but .* \(only vqamodal-table1"):
        reproduce.protocol(table, FOLDERS, tmp_path, seeds=3)
    assert {job.recipe.training.epochs for job in reproduce.protocol(table, FOLDERS, tmp_path, epochs=1)} == {1}


def kins(folder: Path) -> Path:
    """As it is distributed: two files, and KITTI's pictures of equal names; each shows a car before a van."""
    outlines = [[5, 10, 40, 10, 40, 35, 5, 35], [30, 5, 80, 5, 80, 30, 30, 30]]
    annotations = [
        {"id": i, "image_id": 7, "category_id": i, "iscrowd": 0, "a_segm": [outline], "i_segm": [outline]}
        for i, outline in enumerate(outlines, start=1)
    ]
    about = {
        "images": [{"id": 7, "file_name": "000001.png", "height": 40, "width": 90}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "van"}],
    }
    for part, pictures in (("train", "training"), ("test", "testing")):
        (folder / pictures / "image_2").mkdir(parents=True)
        io.write_png(folder / pictures / "image_2" / "000001.png", np.full((40, 90), 90, np.uint8))
        (folder / f"update_{part}_2020.json").write_text(json.dumps(about))
    return folder


def test_kins_keeps_its_own_split_and_is_opaque(tmp_path: Path) -> None:
    jobs = reproduce.protocol("vqamodal-table2", [str(kins(tmp_path / "kins"))], tmp_path / "out")
    prepared = [recipes.prepare(job.recipe) for job in jobs[:2]]
    for each in prepared:
        (learned,), (judged,) = each.split.train, each.split.validation
        assert (learned.source, judged.source) == ("update_train_2020.json", "update_test_2020.json")
        assert len(learned.read().cells) == len(judged.read().cells) == 2
    described: list[Any] = [job.recipe.model for job in jobs[1:]]
    assert not any(each.translucent for each in described)
    assert {job.recipe.preprocessing.net_hw for job in jobs[1:]} == {(384, 1248)}
    assert not any(job.recipe.augmentation.flips for job in jobs[1:])


# --- the table ------------------------------------------------------------------------------------------------------


def scored(network: str, ap: float, seed: int = 0) -> pd.DataFrame:
    told = {"ap": ap, "ap_low": ap - 0.1, "ap_high": ap + 0.1, "ap50": 0.9, "ap75": 0.7, "best_iou": 0.8}
    columns = {f"all_{name}": value for name, value in {**told, "count_right": 0.5}.items()}
    rows = pd.DataFrame({"image": ["a", "b"], "embryo": ["a", "b"], "source": "s", "seed": seed})
    return rows.assign(network=network, **columns)


def shapes(iou: float, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame({"network": SHAPE_CODE, "image": ["a"], "iou": [iou], "seed": [seed]})


def test_ours_stands_beside_what_was_published() -> None:
    table = reproduce.TABLES["vqamodal-table1"].table(pd.concat([shapes(0.98), scored(VQ, 0.6)])).set_index("network")
    assert list(table.index) == [SHAPE_CODE, FCN, VQ]
    assert dict(table.loc[VQ]) == {
        "mAP": "60.0", "mAP 95 %": "50.0-70.0", "AP50": "90.0", "AP75": "70.0", "best IoU": "80.0", "counts": "50.0",
        "reconstruction": "", "published mAP": "68.2",
    }  # fmt: skip
    assert (table.loc[FCN, "mAP"], table.loc[FCN, "published mAP"]) == ("", "66.5")
    assert table.loc[SHAPE_CODE, "reconstruction"] == "98.0"


def test_of_several_seeds_the_mean_and_their_spread() -> None:
    scores = pd.concat([shapes(0.97), shapes(0.99, 1), scored(VQ, 0.5), scored(VQ, 0.6, 1), scored(VQ, 0.7, 2)])
    table = reproduce.TABLES["vqamodal-table3"].table(scores).set_index("network")
    assert table.loc[FULL, "mAP"] == "60.0 ± 10.0", "statistics.stdev([50, 60, 70])"
    assert table.loc[FULL, "mAP 95 %"] == ""
    assert table.loc[SHAPE_CODE, "reconstruction"] == "98.0 ± 1.4"
    assert [table.loc[name, "published mAP"] for name in ABLATION] == ["28.1", "29.8", "30.3"]


# --- a run ----------------------------------------------------------------------------------------------------------


def finish(jobs: Any) -> pd.DataFrame:
    run = reproduce.run(jobs)
    while True:
        try:
            next(run)
        except StopIteration as end:
            scores: pd.DataFrame = end.value
            return scores


@pytest.fixture
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Still smaller than --fast."""
    monkeypatch.setattr(roi_head, "SAMPLED", 8)
    monkeypatch.setattr(rpn, "AFTER_NMS", 16)
    monkeypatch.setattr(vqamodal, "FAST_PICTURES", 6)
    for setting, value in {"training.epochs": 1, "model.encoder": "v1.5"}.items():  # the shallow one has no v1
        monkeypatch.setitem(vqamodal._FAST, setting, value)
    monkeypatch.setitem(vqamodal._FAST_SHAPES, "training.epochs", 2)


@pytest.mark.usefixtures("_smaller")
def test_a_shape_code_is_learned_and_judged(tmp_path: Path) -> None:
    jobs = reproduce.protocol("vqamodal-table1", [], tmp_path, fast=True, device="cpu")
    scores = finish(jobs[:1])
    judged = recipes.prepare(jobs[0].recipe).split.validation
    assert len(scores) == sum(len(sample.read().cells) for sample in judged)
    assert scores["iou"].between(0, 1).all()
    assert 0 < scores["in_use"].iloc[0] <= 1
    assert float(reproduce.TABLES["vqamodal-table1"].table(scores)["reconstruction"].iloc[0]) == pytest.approx(
        100 * scores["iou"].mean(), abs=0.05
    )


@pytest.mark.usefixtures("_smaller", "shallow")
@pytest.mark.parametrize(("table", "network"), [("vqamodal-table1", FCN), ("vqamodal-table3", CODES)])
def test_a_network_goes_through_too(table: str, network: str, tmp_path: Path) -> None:
    jobs = {job.name: job for job in reproduce.protocol(table, [], tmp_path, fast=True, device="cpu")}
    scores = finish((jobs[SHAPE_CODE], jobs[network]))
    told = reproduce.TABLES[table].table(scores).set_index("network")
    assert 0 <= float(told.loc[network, "mAP"]) <= 100
    assert REFINED not in told.index or told.loc[REFINED, "mAP"] == ""
