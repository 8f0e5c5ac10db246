"""Which files become which images and results, told by names alone."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fakes import make

from napari_embryo import batch, io
from napari_embryo.batch import Plan
from napari_embryo.batch.names import LONGEST
from napari_embryo.settings import BatchSettings


def planned(folder: Path, **settings: object) -> Plan:
    return batch.plan([folder], folder / "out", BatchSettings.model_validate(settings))


def names(plan: Plan) -> list[str]:
    return [job.name for job in plan.jobs]


def test_every_picture_is_done_or_named(tmp_path: Path) -> None:
    """At any depth, also below folders that hold pictures."""
    taken = ["top.png", "a/b/c/d/e/deep.tif", "a/beside.jpg", "a/b/c/below.bmp"]
    left = {"phone.heic": ".heic is not read", "a/.hidden.png": "hidden", "a/scan.lsm": ".lsm is not read"}
    make(tmp_path, [*taken, *left, "notes.txt", "a/b/table.csv"])
    (tmp_path / "a" / "cells.zarr" / "0").mkdir(parents=True)
    plan = planned(tmp_path)
    assert sorted(file for job in plan.jobs for file in job.files) == sorted([*taken, "a/cells.zarr"])
    reasons = {os.path.relpath(each.path, tmp_path): each.reason for each in plan.left_out}
    assert reasons.keys() == set(left)
    assert all(said in reasons[name] for name, said in left.items())


def test_results_mirror_the_folders(tmp_path: Path) -> None:
    make(tmp_path, ["day3/x.png", "day5/x.png", "day5/more/y.png"])
    assert names(planned(tmp_path)) == ["day3/x", "day5/x", "day5/more/y"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"include": ["*.png"]}, ["a_x", "day5/c_x"]),
        ({"include": ["day5/*"]}, ["day5/c_x"]),
        ({"exclude": ["A_*"]}, ["b_x", "day5/c_x"]),
        ({"include": ["*_x.*"], "exclude": ["day5/*", "*.jpg"]}, ["a_x"]),
    ],
)
def test_filters(tmp_path: Path, settings: dict[str, object], expected: list[str]) -> None:
    plan = planned(make(tmp_path, ["a_x.png", "b_x.jpg", "day5/c_x.png"]), **settings)
    assert names(plan) == expected
    assert len(plan.jobs) + len(plan.left_out) == 3


LIKE_EACH_OTHER = ["a:1.png", "a?1.png", "a_1.png", "a*1.png", "a_1 .png", "A_1.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
def test_names_that_are_alike_never_meet(tmp_path: Path) -> None:
    plan = planned(make(tmp_path, LIKE_EACH_OTHER), grouping="separate")
    assert len({name.casefold() for name in names(plan)}) == len(LIKE_EACH_OTHER)


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
@pytest.mark.parametrize("name", LIKE_EACH_OTHER[:-1])
def test_a_name_does_not_depend_on_its_neighbors(tmp_path: Path, name: str) -> None:
    """Only what a file system might not tell apart has to look at them: capitals."""
    (alone,) = names(planned(make(tmp_path / "alone", [name])))
    together = planned(make(tmp_path / "together", LIKE_EACH_OTHER[:-1]), grouping="separate")
    assert alone in names(together)
    assert next(job.name for job in together.jobs if job.files == (name,)) == alone


@pytest.mark.parametrize("pair", [("x.png", "x.jpg"), ("x/y.png", "x_y.png"), ("con.png", "_con.png")])
def test_two_inputs_of_one_name(tmp_path: Path, pair: tuple[str, str]) -> None:
    assert len(set(names(planned(make(tmp_path, pair))))) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
@pytest.mark.parametrize(
    "name", [b"\xe9mbryo.png", b"two\nlines.png", b"x" * 251 + b".png", "ä".encode() * 120 + b".png", b"'-=+.png"]
)
def test_odd_names(tmp_path: Path, name: bytes) -> None:
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    (job,) = planned(tmp_path).jobs
    assert len(job.name.encode()) <= LONGEST + 9
    assert job.name.isprintable()
    assert job.paths[0].read_bytes() == b"x"
    job.source.encode()


def test_sources_of_one_name(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        make(tmp_path / folder / "embryos", ["x.png"])
    sources = [tmp_path / "a" / "embryos", tmp_path / "b" / "embryos", tmp_path / "a" / "embryos" / "x.png"]
    plan = batch.plan(sources, tmp_path / "out")
    assert len({job.name.casefold() for job in plan.jobs}) == len(plan.jobs) == 3


@pytest.mark.parametrize(
    ("make_source", "said"),
    [
        (lambda folder: folder / "gone.png", "no such file"),
        (lambda folder: folder / "gone", "no such file or folder"),
        (lambda folder: make(folder, ["notes.txt"]) / "notes.txt", "not read"),
        (lambda folder: make(folder / "bare", []), "no such file or folder"),
        (lambda folder: make(folder / "dull", ["notes.txt"]), "no image in this folder"),
    ],
)
def test_sources_that_cannot_be_done(tmp_path: Path, make_source: Callable[[Path], Path], said: str) -> None:
    plan = batch.plan([make_source(tmp_path)], tmp_path / "out")
    (problem,) = plan.problems
    assert said in problem.text()
    assert plan.jobs == ()


@pytest.mark.skipif(sys.platform == "win32", reason="needs the right to make links")
def test_a_link_back_to_the_folder_ends(tmp_path: Path) -> None:
    (make(tmp_path, ["x.png"]) / "loop").symlink_to(tmp_path)
    plan = planned(tmp_path)
    assert names(plan) == ["x"]
    assert "in the batch already" in plan.left_out[0].reason


def test_a_time_lapse_is_one_image_and_why(tmp_path: Path) -> None:
    plan = planned(make(tmp_path, [f"D2013.01.28_S0717_I132_WELL{w}_RUN{r}.png" for w in (1, 2) for r in (1, 2, 3)]))
    assert [len(job.files) for job in plan.jobs] == [3, 3]
    assert all(job.why for job in plan.jobs)


def test_own_results_are_no_embryos(tmp_path: Path) -> None:
    """Recognized by what is in them, not by what they are called; an image saved with this program is one."""
    pixels = np.zeros((32, 32), np.uint8)
    io.write_ome_tiff(tmp_path / "saved.ome.tif", pixels, "YX")
    io.write_ome_tiff(tmp_path / "x_labels.ome.tif", pixels, "YX", kind="labels", names=("ICM",))
    io.write_ome_tiff(tmp_path / "renamed.ome.tif", pixels, "YX", kind="labels", names=("ICM",))
    io.write_ome_tiff(tmp_path / "x_attention.ome.tif", pixels[None].astype(np.float32), "CYX", names=("SA1",))
    io.write_png(tmp_path / "x_overlay.png", np.zeros((32, 32, 3), np.uint8), is_result=True)
    make(tmp_path, ["my_overlay.png"])
    plan = planned(tmp_path)
    assert sorted(names(plan)) == ["my_overlay", "saved"]
    assert {each.reason for each in plan.left_out} == {"a result of napari-embryo"}
