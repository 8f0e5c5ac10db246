"""From polygons to samples: masks against closed forms, splits without a shared embryo, augmentation as promised."""

import json
from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_embryo.data import (
    Sample,
    TrainingSet,
    blastocyst_masks,
    embryo_of,
    read_labelme_folder,
    read_mask_files,
    read_polygons,
    split_by_embryo,
    to_targets,
)
from napari_embryo.settings import Preprocessing

SHAPE = (200, 240)
CENTRE = (100.0, 120.0)
SMALL = Preprocessing(height=48, width=64)


def circle(radius: float, centre: tuple[float, float] = CENTRE, corners: int = 120) -> np.ndarray:
    """(N, 2) of (y, x)."""
    angle = np.linspace(0, 2 * pi, corners, endpoint=False)
    return np.stack((centre[0] + radius * np.sin(angle), centre[1] + radius * np.cos(angle)), axis=1)


def disc(radius: float, centre: tuple[float, float] = CENTRE) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


RINGS = {
    "zp_outer": [circle(90)],
    "zp_inner": [circle(75)],
    "cavity": [circle(50)],
    "icm": [circle(20, (100.0, 100.0))],
}


def labelme(rings: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """As LabelMe writes: points are (x, y)."""
    shapes = [{"label": label, "points": ring[:, ::-1].tolist()} for label, each in rings.items() for ring in each]
    return {"version": "5.0", "imageHeight": SHAPE[0], "imageWidth": SHAPE[1], "shapes": shapes}


def write_sample(folder: Path, name: str, rings: dict[str, list[np.ndarray]], suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    Image.fromarray(grey).save(folder / f"{name}{suffix}")
    path = folder / f"{name}.json"
    path.write_text(json.dumps(labelme(rings)), encoding="utf-8")
    return path


# --- polygons -> masks ----------------------------------------------------------------------------------------------


def test_concentric_circles_against_closed_forms() -> None:
    masks, known = blastocyst_masks(RINGS, SHAPE)
    icm, te, zp = masks.sum((1, 2))
    assert known.tolist() == [True, True, True]
    assert zp == pytest.approx(pi * (90**2 - 75**2), rel=0.01)
    assert icm == pytest.approx(pi * 20**2, rel=0.02)
    assert te == pytest.approx(pi * (75**2 - 50**2), rel=0.01)


@settings(max_examples=12, deadline=None)
@given(st.floats(3, 30), st.tuples(st.floats(40, 160), st.floats(40, 200)))
def test_the_rules_of_the_data_hold_pixel_by_pixel(radius: float, centre: tuple[float, float]) -> None:
    """ZP = outer - inner; ICM = icm; TE = inner - cavity - icm; only pixels that an outline runs through may differ."""
    masks, _ = blastocyst_masks({**RINGS, "icm": [circle(radius, centre)]}, SHAPE)
    icm = disc(radius, centre)
    expected = np.stack((icm, disc(75) & ~disc(50) & ~icm, disc(90) & ~disc(75)))
    outlines = [(90, CENTRE), (75, CENTRE), (50, CENTRE), (radius, centre)]
    on_outline = np.any([disc(r + 0.5, c) & ~disc(r - 0.5, c) for r, c in outlines], axis=0)
    assert not (masks != expected)[:, ~on_outline].any()


@pytest.mark.parametrize(
    ("left_out", "known"),
    [
        ((), [True, True, True]),
        (("cavity", "icm"), [False, False, True]),
        (("cavity",), [False, False, True]),
        (("icm",), [False, False, True]),
    ],
)
def test_what_was_not_drawn_is_unknown_not_empty(left_out: tuple[str, ...], known: list[bool]) -> None:
    rings = {label: ring for label, ring in RINGS.items() if label not in left_out}
    masks, is_known = blastocyst_masks(rings, SHAPE)
    assert is_known.tolist() == known
    assert masks.any((1, 2)).tolist() == known


def test_a_cavity_in_two_parts_is_one_class() -> None:
    rings = {**RINGS, "cavity": [circle(20, (100.0, 80.0)), circle(20, (100.0, 160.0))], "icm": [circle(5)]}
    masks, _ = blastocyst_masks(rings, SHAPE)
    assert masks[1].sum() == pytest.approx(pi * (75**2 - 2 * 20**2 - 5**2), rel=0.01)


def test_polygons_keep_y_and_x_apart(tmp_path: Path) -> None:
    path = write_sample(tmp_path, "a", RINGS)
    (icm,) = read_polygons(path)["icm"]
    np.testing.assert_allclose(icm.mean(axis=0), (100, 100))
    np.testing.assert_allclose(read_polygons(path)["zp_inner"][0].mean(axis=0), CENTRE)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "",
        "[]",
        "{}",
        '{"shapes": 3}',
        '{"shapes": [{"label": "icm"}]}',
        '{"shapes": [{"label": "icm", "points": []}]}',
    ],
)
def test_a_bad_polygon_file_is_named(tmp_path: Path, content: str) -> None:
    path = write_sample(tmp_path, "broken", RINGS)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"broken\.json.*polygons"):
        read_labelme_folder(tmp_path)


def test_a_file_without_the_zona_is_named_with_what_is_missing(tmp_path: Path) -> None:
    write_sample(tmp_path, "half", {"zp_outer": RINGS["zp_outer"]})
    with pytest.raises(ValueError, match=r"half\.json.*zp_inner missing"):
        read_labelme_folder(tmp_path)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    write_sample(tmp_path, "lonely", RINGS)
    (tmp_path / "lonely.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lonely\.json.*no image"):
        read_labelme_folder(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".BMP"])
def test_a_folder_of_pairs(tmp_path: Path, suffix: str) -> None:
    write_sample(tmp_path / "clinic", "R13-0140A", RINGS, suffix)
    (tmp_path / "clinic" / "without_polygons.png").write_bytes(b"never opened")
    (one,) = read_labelme_folder(tmp_path / "clinic")
    assert (one.name, one.embryo, one.source) == ("R13-0140A", "R13-0140", "clinic")
    assert (one.image.shape, one.masks.shape, one.masks.dtype) == (SHAPE, (3, *SHAPE), bool)
    top, left, bottom, right = one.box
    assert (top, left, bottom, right) == pytest.approx((10, 30, 191, 211), abs=1)


def test_experts_masks(tmp_path: Path) -> None:
    names = ("ICM", "TE", "ZP")
    Image.fromarray(np.full(SHAPE, 90, np.uint8)).save(tmp_path / "b.png")
    for name, radius in zip(names, (10, 20, 30), strict=True):
        Image.fromarray((disc(radius) * 255).astype(np.uint8)).save(tmp_path / f"b_{name}_Mask.png")
    (one,) = read_mask_files(tmp_path)
    np.testing.assert_array_equal(one.masks, np.stack([disc(r) for r in (10, 20, 30)]))
    assert one.known.all()


# --- the split ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "embryo"),
    [
        ("Blast_PCRM_R13-0140b", "R13-0140"),
        ("R13-0140A", "R13-0140"),
        ("R13-0140B", "R13-0140"),
        ("R13-0232", "R13-0232"),
        ("Blast_PCRM_T16-0325B", "T16-0325"),
        ("stork_32176207_0_2BB-", "32176207"),
        ("stork_32898300_0_1B-B-", "32898300"),
        ("Blast_PCRM_d5.12", "d5.12"),
        ("Blast_PCRM_d5.2_right", "d5.2"),
        ("D2013.01.28_S0717_I132_WELL7_RUN93", "S0717_I132_WELL7"),
        ("D2013.01.30_S0717_I132_WELL7_RUN141", "S0717_I132_WELL7"),
        ("stageB_01349", "stageB_01349"),
        ("my embryo 3", "my embryo 3"),
    ],
)
def test_whose_picture_it_is(name: str, embryo: str) -> None:
    assert embryo_of(name) == embryo


def blank(name: str, embryo: str, source: str) -> Sample:
    nothing = np.zeros((8, 8), bool)
    return Sample(name, embryo, source, nothing.astype(np.uint8), np.stack([nothing] * 3), np.ones(3, bool))


@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from("ab")), min_size=1, max_size=40),
    st.floats(0.01, 0.99),
    st.integers(0, 50),
)
def test_a_split_keeps_its_promise_or_is_refused(drawn: list[tuple[int, str]], share: float, seed: int) -> None:
    """Embryos may turn up in both sources."""
    samples = [blank(f"s{i}", f"e{embryo}", source) for i, (embryo, source) in enumerate(drawn)]
    sources = {s.source for s in samples}
    try:
        train, validation = split_by_embryo(samples, share, seed)
    except ValueError as error:
        assert "embryo" in str(error)  # noqa: PT017 - either outcome is right, a broken promise is not
        return
    assert {s.embryo for s in train}.isdisjoint(s.embryo for s in validation)
    assert {s.source for s in train} == {s.source for s in validation} == sources
    assert sorted(s.name for s in (*train, *validation)) == sorted(s.name for s in samples)
    again = split_by_embryo(samples, share, seed)
    assert [[s.name for s in side] for side in again] == [[s.name for s in side] for side in (train, validation)]


def test_the_share_counts_embryos() -> None:
    samples = [blank(f"e{e}-{i}", f"e{e}", "a") for e in range(20) for i in range(3)]
    _, validation = split_by_embryo(samples, 0.25, 0)
    assert len({s.embryo for s in validation}) == 5


def test_another_seed_splits_otherwise() -> None:
    samples = [blank(f"e{e}", f"e{e}", "a") for e in range(20)]
    sides = {tuple(s.name for s in split_by_embryo(samples, 0.3, seed)[1]) for seed in range(5)}
    assert len(sides) > 1


def test_too_few_embryos_are_refused_with_the_source() -> None:
    samples = [blank("x", "one", "clinic"), blank("y", "one", "clinic"), blank("z", "two", "other")]
    with pytest.raises(ValueError, match="clinic: 1 embryo; a split needs at least two"):
        split_by_embryo(samples, 0.2, 0)


# --- what the network sees ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    masks, known = blastocyst_masks(RINGS, SHAPE)
    grey = np.random.default_rng(0).integers(20, 230, SHAPE).astype(np.uint8)
    young, _ = blastocyst_masks({k: v for k, v in RINGS.items() if k.startswith("zp")}, SHAPE)
    return [
        Sample("a", "a", "s", grey, masks, known),
        Sample("young", "young", "s", grey, young, np.array((False, False, True))),
    ]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


def at(samples: list[Sample], epoch: int, index: int, seed: int = 3) -> dict[str, torch.Tensor]:
    dataset = TrainingSet(samples, SMALL, seed)
    dataset.epoch = epoch
    return dataset[index]


def test_an_epochs_item_is_the_same_in_every_run_and_order(samples: list[Sample]) -> None:
    first = at(samples, 4, 0)
    torch.manual_seed(999)
    torch.rand(5)
    dataset = TrainingSet(samples, SMALL, 3)
    dataset.epoch = 4
    _ = dataset[1]
    assert same(first, dataset[0])


@pytest.mark.parametrize("other", [{"epoch": 5}, {"index": 1}, {"seed": 8}])
def test_epochs_items_and_seeds_are_augmented_otherwise(samples: list[Sample], other: dict[str, int]) -> None:
    where = {"epoch": 4, "index": 0, "seed": 3}
    assert not torch.equal(at(samples, **where)["image"], at(samples, **{**where, **other})["image"])


def test_drawing_an_item_leaves_the_global_random_state_alone(samples: list[Sample]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    at(samples, 0, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_targets_stay_masks_through_every_transform(samples: list[Sample], fit: str) -> None:
    dataset = TrainingSet(samples, SMALL.model_copy(update={"fit": fit}), 1)
    for dataset.epoch in range(6):
        for index, sample in enumerate(samples):
            item = dataset[index]
            assert {key: tuple(t.shape) for key, t in item.items()} == {
                "image": (1, 48, 64),
                "masks": (3, 48, 64),
                "valid": (1, 48, 64),
                "known": (3,),
            }
            for key in ("masks", "valid"):
                assert set(item[key].unique().tolist()) <= {0, 1}
            assert item["known"].tolist() == sample.known.tolist()
            assert not item["masks"][:2].any() or index == 0
            assert torch.isfinite(item["image"]).all()
            outside = item["valid"] == 0
            assert (item["image"][outside] == 0).all()


def test_nothing_drawn_lies_outside_the_valid_area(samples: list[Sample]) -> None:
    """A target on padding would teach the network to see the embryo where there is no picture."""
    for epoch in range(6):
        item = at(samples, epoch, 0)
        assert not (item["masks"].bool() & (item["valid"] == 0)).any()


def test_image_and_masks_move_together() -> None:
    """A bright disc is its own mask: after any flip, rotation, zoom and shear they still coincide."""
    bright = disc(60)
    sample = Sample("d", "d", "s", (bright * 200 + 20).astype(np.uint8), np.stack([bright] * 3), np.ones(3, bool))
    dataset = TrainingSet([sample], SMALL, 0)
    for dataset.epoch in range(12):
        item = dataset[0]
        inside, around = (
            item["image"][0][m] for m in (item["masks"][0].bool(), (item["valid"][0] == 1) & ~item["masks"][0].bool())
        )
        assert inside.numel() > 0
        if around.numel():  # inverted contrast is one of the augmentations
            spread = abs(inside.median() - around.median())
            middle = (inside.median() + around.median()) / 2
            wrong = ((inside > middle) != (inside.median() > middle)).float().mean()
            assert spread > 0.3
            assert wrong < 0.15


def test_without_augmentation_the_target_is_the_letterboxed_picture(samples: list[Sample]) -> None:
    item = TrainingSet(samples, SMALL, augment=False)[0]
    assert same(item, to_targets(samples[0], SMALL))
    scale = 48 / SHAPE[0]
    assert item["valid"].sum() == 48 * round(SHAPE[1] * scale)
    expected = np.array([m.sum() for m in samples[0].masks]) * scale**2
    assert item["masks"].sum((1, 2)).numpy() == pytest.approx(expected, rel=0.08)


# --- the real ones --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("folder", "count"), [("annotated", 80), ("incubator", 22)])
def test_the_annotated_folders_load(data_dir: Path, folder: str, count: int) -> None:
    loaded = read_labelme_folder(data_dir / "blastocyst" / folder)
    assert len(loaded) == count
    for sample in loaded:
        zona, image = sample.masks[2].mean(), sample.image
        assert sample.masks.shape[1:] == image.shape
        assert image.ndim == 2
        assert image.dtype == np.uint8
        assert sample.known[2]
        assert 0.01 < zona < 0.45, sample.name
        assert not (sample.masks[1] & sample.masks[2]).any()
    siblings = [s.embryo for s in loaded if "R13-0140" in s.name]
    assert set(siblings) <= {"R13-0140"}


def test_the_experts_masks_load(data_dir: Path) -> None:
    (one,) = read_mask_files(data_dir / "blastocyst" / "expert")
    assert one.masks.shape == (3, *one.image.shape)
    assert all(0.02 < m.mean() < 0.4 for m in one.masks)
