"""Outlines and run lengths -> masks, against scikit-image, closed forms and COCO's own code."""

import json
from math import pi
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from napari_embryo.data import blastocyst_masks, coco, rle
from napari_embryo.data.polygons import circle, fill, rectangle

SHAPE = (200, 240)
CENTER = (100.0, 120.0)


def ring(radius: float, center: tuple[float, float] = CENTER, corners: int = 120) -> np.ndarray:
    """(N, 2) of (y, x)."""
    angle = np.linspace(0, 2 * pi, corners, endpoint=False)
    return np.stack((center[0] + radius * np.sin(angle), center[1] + radius * np.cos(angle)), axis=1)


def disc(radius: float, center: tuple[float, float] = CENTER) -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(y - center[0], x - center[1]) <= radius


RINGS = {"zp_outer": [ring(90)], "zp_inner": [ring(75)], "cavity": [ring(50)], "icm": [ring(20, (100.0, 100.0))]}


@given(st.integers(0, 10_000), st.integers(3, 9), st.integers(5, 40), st.integers(5, 40))
def test_any_polygon_is_filled_as_scikit_image_does(seed: int, corners: int, height: int, width: int) -> None:
    """Also where it crosses itself or leaves the picture."""
    drawn = np.random.default_rng(seed).uniform(-15, 50, (corners, 2))
    np.testing.assert_array_equal(fill([drawn], (height, width)), polygon2mask((height, width), drawn))


@given(st.floats(3, 30), st.tuples(st.floats(0, 40), st.floats(0, 40)), st.integers(3, 12), st.sampled_from((1.0, 0.5)))
def test_pixels_on_the_outline_belong_to_it(
    radius: float, center: tuple[float, float], corners: int, grid: float
) -> None:
    """Corners on whole and half pixels, where rounding decides."""
    drawn = np.round(ring(radius, center, corners) / grid) * grid
    if len(np.unique(drawn, axis=0)) == corners:
        np.testing.assert_array_equal(fill([drawn], (40, 44)), polygon2mask((40, 44), drawn))


def test_several_rings_are_one_mask() -> None:
    both = fill([ring(20, (50.0, 60.0)), ring(20, (50.0, 160.0))], SHAPE)
    np.testing.assert_array_equal(both, fill([ring(20, (50.0, 60.0))], SHAPE) | fill([ring(20, (50.0, 160.0))], SHAPE))


def test_rectangles_and_circles_have_their_areas() -> None:
    assert fill([rectangle(np.array(((10.5, 20.5), (30.5, 60.5))))], SHAPE).sum() == 20 * 40
    assert fill([circle(np.array((CENTER, (100.0, 180.0))))], SHAPE).sum() == pytest.approx(pi * 60**2, rel=0.005)


# --- the rings of a blastocyst --------------------------------------------------------------------------------------


def test_concentric_circles_against_closed_forms() -> None:
    masks, known = blastocyst_masks(RINGS, SHAPE)
    icm, te, zp = masks.sum((1, 2))
    assert known.tolist() == [True, True, True]
    assert zp == pytest.approx(pi * (90**2 - 75**2), rel=0.01)
    assert icm == pytest.approx(pi * 20**2, rel=0.02)
    assert te == pytest.approx(pi * (75**2 - 50**2), rel=0.01)


@settings(max_examples=12, deadline=None)
@given(st.floats(3, 30), st.tuples(st.floats(40, 160), st.floats(40, 200)))
def test_the_rules_of_the_data_hold_pixel_by_pixel(radius: float, center: tuple[float, float]) -> None:
    """ZP = outer - inner; ICM = icm; TE = inner - cavity - icm; only pixels that an outline runs through may differ."""
    masks, _ = blastocyst_masks({**RINGS, "icm": [ring(radius, center)]}, SHAPE)
    icm = disc(radius, center)
    expected = np.stack((icm, disc(75) & ~disc(50) & ~icm, disc(90) & ~disc(75)))
    outlines = [(90, CENTER), (75, CENTER), (50, CENTER), (radius, center)]
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
    rings = {label: drawn for label, drawn in RINGS.items() if label not in left_out}
    masks, is_known = blastocyst_masks(rings, SHAPE)
    assert is_known.tolist() == known
    assert masks.any((1, 2)).tolist() == known


def test_a_cavity_in_two_parts_is_one_class() -> None:
    rings = {**RINGS, "cavity": [ring(20, (100.0, 80.0)), ring(20, (100.0, 160.0))], "icm": [ring(5)]}
    masks, _ = blastocyst_masks(rings, SHAPE)
    assert masks[1].sum() == pytest.approx(pi * (75**2 - 2 * 20**2 - 5**2), rel=0.01)


# --- COCO's run lengths and polygons --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> object:
    return pytest.importorskip("pycocotools.mask", reason="COCO's own code is not installed")


@given(data=st.data())
def test_run_lengths_come_back(official: object, data: st.DataObject) -> None:
    """Also long runs, a picture that is all foreground, and one that begins with foreground."""
    height, width = data.draw(st.integers(1, 300)), data.draw(st.integers(1, 40))
    share = data.draw(st.sampled_from((0.0, 0.001, 0.1, 0.5, 0.999, 1.0)))
    drawn = np.random.default_rng(data.draw(st.integers(0, 1000))).random((height, width)) < share
    encoded = official.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"]
    text = encoded.decode() if isinstance(encoded, bytes) else encoded
    np.testing.assert_array_equal(rle.decode(text, (height, width)), drawn)
    np.testing.assert_array_equal(rle.decode(rle.encode(drawn), (height, width)), drawn)
    assert rle.compress(rle.encode(drawn)) == text


@given(data=st.data())
def test_run_lengths_are_those_of_pycocotools(data: st.DataObject) -> None:
    """Numbers and text alike; also of wide pictures, whose runs need many characters."""
    theirs = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 3000))
    share = data.draw(st.sampled_from((0.0, 0.0001, 0.02, 0.5, 1.0)))
    drawn = np.random.default_rng(data.draw(st.integers(0, 1000))).random((height, width)) < share
    packed = theirs.encode(np.asfortranarray(drawn.astype(np.uint8)))
    assert rle.compress(rle.encode(drawn)) == packed["counts"].decode()
    assert theirs.frPyObjects({"size": [height, width], "counts": rle.encode(drawn)}, height, width) == packed


@given(st.lists(st.integers(0, 2**31 - 1), max_size=12))
def test_text_of_run_lengths_comes_back(lengths: list[int]) -> None:
    assert rle.decompress(rle.compress(lengths)) == lengths


@pytest.mark.parametrize(
    ("mask", "lengths"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[0, 1], [1, 1]], [1, 3]),
        ([[1, 0], [0, 1]], [0, 1, 2, 1]),
    ],
)
def test_run_lengths_go_down_the_columns(mask: list[list[int]], lengths: list[int]) -> None:
    assert rle.encode(np.array(mask, bool)) == lengths


@pytest.mark.parametrize(
    ("counts", "message"),
    [([3, 4], "for 7 pixels"), ([-1, 21], "20 pixels"), ("é", "not a character"), ("R", "break off"), ("", "0 pixels")],
)
def test_damaged_run_lengths_are_refused(counts: list[int] | str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rle.decode(counts, (4, 5))


@pytest.mark.parametrize("seed", range(5))
def test_polygons_are_filled_as_coco_does(official: object, seed: int) -> None:
    """COCO rounds corners to a fifth of a pixel, so that a few pixels of the rim may differ."""
    rng = np.random.default_rng(seed)
    drawn = [ring(60, (100 + rng.random(), 110 + rng.random()), 30)[:, ::-1].ravel().tolist()]
    ours = coco.segment(drawn, SHAPE)
    theirs = official.decode(official.merge(official.frPyObjects(drawn, *SHAPE))).astype(bool)
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.995


def test_real_outlines_are_filled_exactly_as_coco_does(official: object, data_dir: Path) -> None:
    annotations = json.loads((data_dir / "overlap" / "amodal.json").read_text())["annotations"]
    for annotation in annotations[::20]:
        theirs = official.decode(official.merge(official.frPyObjects(annotation["segmentation"], 512, 512)))
        np.testing.assert_array_equal(coco.segment(annotation["segmentation"], (512, 512)), theirs.astype(bool))


def test_a_square_of_whole_pixels_is_exact() -> None:
    mask = coco.segment([[10, 20, 30, 20, 30, 25, 10, 25]], (50, 60))
    assert np.argwhere(mask).min(axis=0).tolist() == [20, 10]
    assert mask.sum() == 20 * 5
