"""What the network sees of a sample: the same in every run, masks that stay masks and move with the picture."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from napari_embryo.augment import TrainingSet, fills_its_picture, in_a_well, order, preview, to_targets
from napari_embryo.data import Sample, Truth
from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES
from napari_embryo.geometry import GRAY_MEAN, GRAY_STD
from napari_embryo.render import color_of
from napari_embryo.settings import Augmentation, Preprocessing
from napari_embryo.synthetic import draw_blastocyst, draw_cleavage

SHAPE = (96, 120)
SMALL = Preprocessing(height=48, width=64)
STILL = Augmentation(
    flips=False, rotation=0, zoom_out=1, zoom_in=1, shift=0, shear=0, crop=0, photometric=0, invert=0, wells=0
)
ALWAYS = Augmentation(crop=1, wells=1, invert=0.5, photometric=2)
Items = dict[str, Tensor]


def disc(radius: float, center: tuple[float, float] = (48, 60), shape: tuple[int, int] = SHAPE) -> npt.NDArray[Any]:
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return (ys - center[0]) ** 2 + (xs - center[1]) ** 2 <= radius**2


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    drawn = draw_blastocyst(3, SHAPE)
    masks = drawn.stack(BLASTOCYST_CLASSES)
    young = masks & np.array((False, False, True))[:, None, None]
    known = np.array((False, False, True))
    return [Sample.of("a", drawn.image, masks), Sample.of("young", drawn.image, young, known)]


def same(a: Items, b: Items) -> bool:
    """To the bit; what is not known of a picture is NaN in both."""
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], rtol=0, atol=0, equal_nan=True) for key in a)


def at(samples: list[Sample], epoch: int, index: int, seed: int = 3) -> Items:
    return TrainingSet(samples, SMALL, Augmentation(), seed).item(epoch, index)


def test_an_epochs_item_is_the_same_in_every_run_and_order(samples: list[Sample]) -> None:
    first = at(samples, 4, 0)
    torch.manual_seed(999)
    items = TrainingSet(samples, SMALL, Augmentation(), 3)
    items.epoch = 4
    _ = items[1]
    assert same(first, items[0])


@pytest.mark.parametrize("other", [{"epoch": 5}, {"index": 1}, {"seed": 8}], ids=str)
def test_epochs_items_and_seeds_are_altered_otherwise(samples: list[Sample], other: dict[str, int]) -> None:
    where = {"epoch": 4, "index": 0, "seed": 3}
    twice = [samples[0], samples[0]]
    assert not torch.equal(at(twice, **where)["image"], at(twice, **{**where, **other})["image"])


def test_chance_elsewhere_is_left_alone(samples: list[Sample]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    at(samples, 0, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("how", [None, STILL, Augmentation(), ALWAYS], ids=["none", "still", "usual", "always"])
def test_targets_stay_targets(samples: list[Sample], fit: str, how: Augmentation | None) -> None:
    items = TrainingSet(samples, SMALL.model_copy(update={"fit": fit}), how, 1)
    for epoch in range(6):
        for index, sample in enumerate(samples):
            item = items.item(epoch, index)
            assert {key: tuple(t.shape) for key, t in item.items()} == {
                "image": (1, 48, 64), "masks": (3, 48, 64), "valid": (1, 48, 64), "known": (3,),
                "ratio": (), "low": (), "high": (),
            }  # fmt: skip
            for key in ("masks", "valid"):
                assert set(item[key].float().unique().tolist()) <= {0, 1}
            assert item["known"].tolist() == sample.read().known.tolist()
            assert not item["masks"][:2].any() or index == 0
            assert torch.isfinite(item["image"]).all()
            outside = item["valid"] == 0
            assert (item["image"][outside] == 0).all()
            assert not (item["masks"].bool() & outside).any(), "a mask on the padding"


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_everything_off_is_the_plain_letterboxed_picture(samples: list[Sample], fit: str) -> None:
    pre = SMALL.model_copy(update={"fit": fit})
    plain = TrainingSet(samples, pre)
    for epoch, index in ((0, 0), (1, 0), (2, 1)):
        item = TrainingSet(samples, pre, STILL, 7).item(epoch, index)
        assert same(item, plain[index])
        assert same(item, to_targets(samples[index].read(), pre))


def test_the_plain_picture_by_hand(samples: list[Sample]) -> None:
    item = TrainingSet(samples, SMALL)[0]
    scale = 48 / SHAPE[0]
    assert item["valid"].sum() == 48 * round(SHAPE[1] * scale)
    expected = np.array([m.sum() for m in samples[0].read().masks]) * scale**2
    assert item["masks"].sum((1, 2)).numpy() == pytest.approx(expected, rel=0.08)


def test_picture_and_masks_move_together() -> None:
    """A bright disc is its own mask: after any flip, turn, zoom, shear, crop or well they still coincide."""
    bright = disc(34)
    sample = Sample.of("d", (bright * 200 + 20).astype(np.uint8), np.stack([bright] * 3))
    items = TrainingSet([sample], SMALL, Augmentation(wells=0), 0)
    for item in (items.item(epoch, 0) for epoch in range(12)):
        mask, valid = item["masks"][0].bool(), item["valid"][0].bool()
        inside, around = item["image"][0][mask], item["image"][0][valid & ~mask]
        assert inside.numel() > 0
        if around.numel():  # inverted contrast is one of the alterations
            middle = (inside.median() + around.median()) / 2
            wrong = ((inside > middle) != (inside.median() > middle)).float().mean()
            assert abs(inside.median() - around.median()) > 0.3
            assert wrong < 0.15


@pytest.mark.parametrize("how", [{}, {"rotation": 0, "shear": 0, "zoom_in": 1, "zoom_out": 1, "shift": 0}])
def test_masks_lie_on_their_pictures_to_a_tenth_of_a_pixel(how: dict[str, Any]) -> None:
    """A soft spot's center of brightness against its mask's center: over many alterations no shift is left."""
    rows, columns = np.mgrid[:120, :160]
    distance = np.hypot(rows - 57.3, columns - 81.6)
    spot = np.clip(22.5 - distance, 0, 1)  # half bright exactly where the mask ends
    sample = Sample.of("s", (spot * 255).astype(np.uint8), np.stack([distance <= 22] * 3))
    still = Augmentation(wells=0, crop=0, photometric=0, invert=0)
    items = TrainingSet([sample], Preprocessing(height=96, width=120), still.model_copy(update=how), 4)
    shifts = []
    for item in (items.item(epoch, 0) for epoch in range(60)):
        bright = item["image"][0].numpy() - item["image"][0].numpy().min()
        bright = np.where(item["valid"][0].numpy(), bright, 0)
        at = np.array([(np.indices(bright.shape)[axis] * bright).sum() / bright.sum() for axis in (0, 1)])
        shifts.append(center(item["masks"][0]) - at)
    assert np.abs(np.mean(shifts, axis=0)).max() < 0.1


def transformed(how: dict[str, Any], count: int = 40) -> list[Items]:
    """A small disc right of a point, under one alteration alone."""
    pointer = np.stack([disc(8), disc(8, (48, 96))])
    sample = Sample.of("p", (pointer.any(0) * 200 + 20).astype(np.uint8), pointer)
    items = TrainingSet([sample], Preprocessing(height=96, width=120), STILL.model_copy(update=how), 2)
    return [items.item(epoch, 0) for epoch in range(count)]


def center(mask: Tensor) -> npt.NDArray[np.float64]:
    return np.argwhere(mask.numpy()).mean(0)


def angle(item: Items) -> float:
    dy, dx = center(item["masks"][1]) - center(item["masks"][0])
    return float(np.degrees(np.arctan2(dy, dx)))


@pytest.mark.parametrize(
    ("how", "measured", "low", "high"),
    [
        ({"rotation": 30}, angle, -30, 30),
        ({"zoom_out": 0.7}, lambda i: float(i["masks"][0].sum() / disc(8).sum()) ** 0.5, 0.7, 1),
        ({"zoom_in": 1.2}, lambda i: float(i["masks"][0].sum() / disc(8).sum()) ** 0.5, 1, 1.2),
        ({"shift": 0.1}, lambda i: center(i["masks"][0])[0] - 48, -9.6, 9.6),
        ({"shift": 0.1}, lambda i: center(i["masks"][0])[1] - 60, -12, 12),
    ],
    ids=["rotation", "zoom_out", "zoom_in", "shift down", "shift right"],
)
def test_each_number_is_a_limit_that_is_nearly_reached(
    how: dict[str, Any], measured: Callable[[Items], float], low: float, high: float
) -> None:
    found = [measured(item) for item in transformed(how)]
    slack = 0.06 * (high - low) + 0.03
    assert low - slack <= min(found) < low + (high - low) / 4
    assert high - (high - low) / 4 < max(found) <= high + slack


def test_flips_and_inversion_happen_as_often_as_told() -> None:
    sides = {tuple(np.sign(center(i["masks"][1]) - (47.5, 59.5)).astype(int)) for i in transformed({"flips": True})}
    assert {right for _, right in sides} == {-1, 1}
    inverted = [bool(i["image"][0][i["masks"][0].bool()].mean() < 0) for i in transformed({"invert": 0.5})]
    assert 8 < sum(inverted) < 32
    assert all(i["image"][0][i["masks"][0].bool()].mean() > 0 for i in transformed({"photometric": 0.3}))


def test_a_crop_shows_the_embryo_larger(samples: list[Sample]) -> None:
    small = np.pad(samples[0].read().image, 60, mode="edge")
    masks = np.pad(samples[0].read().masks, ((0, 0), (60, 60), (60, 60)))
    items = TrainingSet([Sample.of("far", small, masks)], SMALL, STILL.model_copy(update={"crop": 1}), 0)
    whole = to_targets(items.samples[0].read(), SMALL)["masks"].sum()
    assert all(items.item(epoch, 0)["masks"].sum() > 2 * whole for epoch in range(5))


@pytest.mark.parametrize(("below", "closer"), [(0.0, False), (0.15, False), (0.6, True), (1.0, True)])
def test_judging_looks_as_closely_as_use(below: float, closer: bool) -> None:
    """A disc of a fifth of the picture's area, its box with the margin a half of it."""
    mask = np.zeros((100, 100), bool)
    mask[25:75, 25:75] = True
    sample = Sample.of("d", mask * np.uint8(200), mask[None])
    pre = Preprocessing(height=64, width=64, look_again_below=below)
    share = float(TrainingSet([sample], pre)[0]["masks"].float().mean())
    assert share == pytest.approx(1 / 1.24**2 if closer else 0.25, abs=0.03)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"ratio": 0.2}, {"ratio": 0.2, "low": None, "high": None}),
        ({"grade": "A"}, {"ratio": None, "low": 0.0, "high": 0.1}),
        ({"grade": "D"}, {"ratio": None, "low": 0.5, "high": 1.0}),
        ({}, {"ratio": None, "low": None, "high": None}),
    ],
    ids=str,
)
def test_what_is_told_of_the_picture_as_a_whole_comes_along(told: dict[str, Any], expected: dict[str, Any]) -> None:
    sample = Sample.of("d", disc(20) * np.uint8(200), disc(20)[None], **told)
    item = TrainingSet([sample], SMALL, Augmentation(), 0)[0]
    found = {name: None if item[name].isnan() else pytest.approx(item[name].item()) for name in expected}
    assert found == expected


def test_cells_move_with_the_masks() -> None:
    drawn = draw_cleavage(1, shape=(96, 120))
    union = drawn.cells.any(axis=0)[None]
    sample = Sample.of("c", drawn.image, union, cells=drawn.cells, visible=drawn.cells)
    items = TrainingSet([sample], SMALL, Augmentation(wells=1), 0, cells=True)
    for item in (items.item(epoch, 0) for epoch in range(6)):
        assert item["cells"].shape == (len(drawn.cells), 48, 64)
        assert torch.equal(item["visible"], item["cells"])
        differs = (item["cells"].any(0) != item["masks"][0]).sum()
        assert differs <= 0.03 * item["masks"][0].sum() + 2
    none = Sample.of("none", drawn.image, union)
    assert TrainingSet([none], SMALL, Augmentation(), 0, cells=True)[0]["cells"].shape == (0, 48, 64)


# --- an incubator's well --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def framed() -> Truth:
    """An embryo as a microscope frames it."""
    image = np.full(SHAPE, 120, np.uint8)
    image[disc(40)] = 220
    return Truth(image, np.stack([disc(40) & ~disc(34), disc(12)]), np.ones(2, bool), np.zeros((0, *SHAPE), bool))


@pytest.mark.parametrize("seed", range(4))
def test_a_well_around_an_embryo(framed: Truth, seed: int) -> None:
    assert fills_its_picture(framed)
    well = in_a_well(framed, np.random.default_rng(seed))
    again = in_a_well(framed, np.random.default_rng(seed))
    np.testing.assert_array_equal(well.image, again.image)
    np.testing.assert_array_equal(well.masks, again.masks)
    assert well.masks.dtype == np.bool_
    assert well.masks.shape == (2, *well.image.shape)
    assert well.image.min() >= 0
    assert well.image.max() <= 255
    assert well.known.tolist() == [True, True]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_embryo_lies_where_its_mask_is(framed: Truth, seed: int, dtype: type[np.unsignedinteger[Any]]) -> None:
    """What differs from the same well around an embryo without contrast."""
    scale = np.iinfo(dtype).max // 255
    bright = replace(framed, image=framed.image.astype(dtype) * dtype(scale))
    flat = replace(framed, image=np.full(SHAPE, 120, np.uint8))
    seen, bare = (in_a_well(truth, np.random.default_rng(seed)) for truth in (bright, flat))
    rim, core = seen.masks
    ys, xs = np.nonzero(rim)
    whole = disc((np.ptp(ys) + 1) / 2, ((ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2), rim.shape)
    added = seen.image - bare.image
    lit = whole & (bare.image > 40) & (bare.image < 150)
    assert np.mean(added[lit] > 3) > 0.9
    assert np.abs(added[~_near(whole)]).max() < 1
    assert whole[core].all()


def _near(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(mask, iterations=6))


@pytest.mark.parametrize(
    ("masks", "fills"),
    [(disc(40), True), (disc(20), False), (disc(40, (20, 60)), False), (np.zeros(SHAPE, bool), False)],
    ids=["framed", "small", "cut off", "nothing drawn"],
)
def test_only_what_a_microscope_framed_is_moved(masks: npt.NDArray[np.bool_], fills: bool) -> None:
    truth = Truth(np.zeros(SHAPE, np.uint8), masks[None], np.ones(1, bool), np.zeros((0, *SHAPE), bool))
    assert fills_its_picture(truth) is fills


# --- reading --------------------------------------------------------------------------------------------------------


class Counted:
    """Counts how often a picture is read."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.times = truth, 0

    def __call__(self) -> Truth:
        self.times += 1
        return self.truth


@pytest.mark.parametrize(("room", "times"), [(10**9, 2), (0, 6), (40_000, 4)], ids=["all", "none", "one of two"])
def test_pictures_are_kept_as_far_as_memory_is_given(framed: Truth, room: int, times: int) -> None:
    """Each is 34 kB and visited three times."""
    read = [Counted(framed), Counted(framed)]
    samples = [Sample(str(i), str(i), "s", partial(one)) for i, one in enumerate(read)]
    items = TrainingSet(samples, SMALL, cache_bytes=room)
    for epoch in range(3):
        for index in range(2):
            items.item(epoch, index)
    assert sum(one.times for one in read) == times


# --- preview --------------------------------------------------------------------------------------------------------


def test_preview(samples: list[Sample]) -> None:
    shown = preview(samples, SMALL, Augmentation(), 3, 5)
    assert shown.shape == (5, 48, 64, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown, preview(samples, SMALL, Augmentation(), 3, 5))
    assert all((a != b).any() for a, b in pairwise(shown[[0, 2, 4]]))
    first = TrainingSet(samples, SMALL, Augmentation(), 3).item(1, order(len(samples), 3, 1)[0])
    colored = (shown[0] != shown[0][..., :1]).any(-1)
    assert not colored[~first["masks"].bool().any(0).numpy()].any()
    assert colored.any()
    gray = np.clip(first["image"][0].numpy() * GRAY_STD + GRAY_MEAN, 0, 1) * 255
    np.testing.assert_allclose(shown[0][~colored][:, 0], gray[~colored], atol=1)


def test_a_preview_has_the_colors_of_its_classes() -> None:
    """Whatever their places: the embryo's parts are no blastocyst's."""
    drawn = draw_cleavage(1, shape=SHAPE, fragmentation=0.3)
    masks = np.stack([drawn.fragments, drawn.cells.any(0) | drawn.fragments])
    shown = preview([Sample.of("a", drawn.image, masks)], SMALL, STILL, 0, 1, FRAGMENT_CLASSES)
    colored = {tuple(pixel) for pixel in shown.reshape(-1, 3).tolist() if len(set(pixel)) > 1}
    assert colored == {color_of(name) for name in FRAGMENT_CLASSES}


def test_a_preview_shows_a_repeated_picture_as_often_as_an_epoch(samples: list[Sample]) -> None:
    visited = [samples[0]] * 3
    shown = preview(visited, SMALL, Augmentation(), 3, 3)
    assert len({picture.tobytes() for picture in shown}) == 3
    items = TrainingSet(visited, SMALL, Augmentation(), 3)
    for picture, place in zip(shown, order(3, 3, 1), strict=True):
        gray = np.clip(items.item(1, place)["image"][0].numpy() * GRAY_STD + GRAY_MEAN, 0, 1) * 255
        plain = (picture == picture[..., :1]).all(-1)
        np.testing.assert_allclose(picture[plain][:, 0], gray[plain], atol=1)


def test_the_order_of_an_epoch_shares_no_chance_with_a_picture() -> None:
    """NumPy pads a seed with zeros: (seed, epoch) would be the stream of picture 0."""
    for place in range(20):
        assert order(12, 3, 1) != np.random.default_rng((3, 1, place)).permutation(12).tolist()
    assert sorted(order(12, 3, 1)) == list(range(12))


def test_preview_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no sample to show"):
        preview([], SMALL, Augmentation(), 0, 3)
