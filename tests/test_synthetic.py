"""Drawn embryos: the truth fits together and fits the pixels, and a seed always gives the same embryo."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_embryo.synthetic import STYLES, SyntheticEmbryo, draw_blastocyst, draw_cleavage, draw_timelapse
from napari_embryo.synthetic.caption import burn_in

SMALL = (150, 170)
BLASTOCYST = ("ICM", "TE", "ZP")


def enclosed_by(zona: np.ndarray) -> np.ndarray:
    """What lies within the ring's inner edge; a ring cut by the border is closed by it."""
    return ndimage.binary_fill_holes(zona) & ~zona


@pytest.fixture(scope="module")
def embryo() -> SyntheticEmbryo:
    return draw_blastocyst(3)


def test_blastocyst_has_the_documented_form(embryo: SyntheticEmbryo) -> None:
    assert embryo.image.shape == (390, 440)
    assert embryo.image.dtype == np.uint8
    assert set(embryo.masks) == set(BLASTOCYST)
    for mask in embryo.masks.values():
        assert mask.shape == embryo.image.shape
        assert mask.dtype == bool
    assert embryo.stack(BLASTOCYST).shape == (3, 390, 440)
    assert not embryo.stack(("nothing",)).any()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("seed", range(6))
def test_masks_of_a_blastocyst_nest(seed: int, style: str) -> None:
    masks = draw_blastocyst(seed, SMALL, style).masks
    inside = enclosed_by(masks["ZP"])
    assert np.all(inside[masks["ICM"]])
    assert np.all(inside[masks["TE"]])
    assert np.sum(masks["ICM"].astype(int) + masks["TE"] + masks["ZP"] > 1) == 0
    below_zona = ndimage.distance_transform_edt(inside)
    assert below_zona[masks["TE"]].max() < 0.4 * np.sqrt(inside.sum() / np.pi)


@pytest.mark.parametrize("seed", range(6))
def test_proportions_are_those_of_human_blastocysts(seed: int) -> None:
    masks = draw_blastocyst(seed).masks
    inner = enclosed_by(masks["ZP"]).sum()
    radius = np.sqrt(inner / np.pi)
    thickness = np.sqrt((inner + masks["ZP"].sum()) / np.pi) - radius
    assert 0.05 < masks["ICM"].sum() / inner < 0.35
    assert 0.1 < masks["TE"].sum() / inner < 0.45
    assert 0.05 < thickness / radius < 0.3


@pytest.mark.parametrize("seed", range(4))
def test_inner_cell_mass_is_one_clump_touching_the_trophectoderm(seed: int) -> None:
    masks = draw_blastocyst(seed).masks
    _, parts = ndimage.label(masks["ICM"])
    assert parts == 1
    assert np.any(ndimage.binary_dilation(masks["ICM"]) & masks["TE"])


def test_masks_fit_the_pixels() -> None:
    """The zona's inner edge is the darkest closed line, cells are rougher than fluid and fluid than the empty dish."""
    darker, rougher = [], []
    for seed in range(5):
        embryo = draw_blastocyst(seed)
        gray = embryo.image.astype(float)
        inside = enclosed_by(embryo.masks["ZP"])
        edge = inside & ~ndimage.binary_erosion(inside, iterations=2)
        within = ndimage.binary_erosion(inside, iterations=8) & ~ndimage.binary_erosion(inside, iterations=10)
        darker.append(gray[edge].mean() < gray[within].mean() - 15)
        detail = np.abs(gray - ndimage.gaussian_filter(gray, 4))
        fluid = ndimage.binary_erosion(inside & ~embryo.masks["ICM"] & ~embryo.masks["TE"], iterations=6)
        outside = ndimage.binary_erosion(~(inside | embryo.masks["ZP"]), iterations=10)
        rougher.append(detail[embryo.masks["ICM"]].mean() > detail[fluid].mean() > detail[outside].mean())
    assert all(darker)
    assert sum(rougher) >= 4


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: draw_blastocyst(seed, SMALL),
        lambda seed: draw_blastocyst(seed, SMALL, "incubator", scale_bar=True),
        lambda seed: draw_cleavage(seed, shape=SMALL),
        lambda seed: draw_timelapse(seed, wells=1, frames=2, shape=(80, 80))[0][1],
    ],
    ids=["blastocyst", "incubator", "cleavage", "time-lapse"],
)
def test_a_seed_gives_the_same_embryo_and_another_seed_another(draw) -> None:
    first, again, other = draw(5), draw(5), draw(6)
    np.testing.assert_array_equal(first.image, again.image)
    for name, mask in first.masks.items():
        np.testing.assert_array_equal(mask, again.masks[name])
    np.testing.assert_array_equal(first.cells, again.cells)
    np.testing.assert_array_equal(first.fragments, again.fragments)
    assert np.mean(first.image != other.image) > 0.5
    assert np.any(first.masks["ZP"] != other.masks["ZP"])


def test_drawing_leaves_the_global_random_state_alone() -> None:
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    draw_blastocyst(0, SMALL)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_scale_bar_is_25_um_long_and_changes_no_mask() -> None:
    plain, barred = draw_blastocyst(1), draw_blastocyst(1, scale_bar=True)
    changed = np.abs(plain.image.astype(int) - barred.image).max(axis=0) > 12
    columns = np.flatnonzero(changed)
    length_um = (columns[-1] - columns[0] + 1) * barred.pixel_size_um[1]
    assert length_um == pytest.approx(25, abs=4 * barred.pixel_size_um[1])
    np.testing.assert_array_equal(plain.stack(BLASTOCYST), barred.stack(BLASTOCYST))


def test_the_same_embryo_in_a_larger_picture_has_smaller_pixels() -> None:
    small, large = draw_blastocyst(0, (200, 200)), draw_blastocyst(0, (400, 400))
    assert small.pixel_size_um[0] == pytest.approx(2 * large.pixel_size_um[0])
    diameters = [2 * np.sqrt(enclosed_by(e.masks["ZP"]).sum() / np.pi) * e.pixel_size_um[0] for e in (small, large)]
    assert diameters[0] == pytest.approx(diameters[1], rel=0.02)
    assert 100 < diameters[0] < 220


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    shape=st.tuples(st.integers(64, 120), st.integers(64, 120)),
    style=st.sampled_from(STYLES),
)
def test_any_seed_and_shape_draws(seed: int, shape: tuple[int, int], style) -> None:
    for embryo in (draw_blastocyst(seed, shape, style), draw_cleavage(seed, shape=shape, style=style)):
        assert embryo.image.shape == shape
        assert embryo.image.std() > 3
        assert embryo.masks["ZP"].any()
    assert embryo.cells.any(axis=(1, 2)).all()


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8, 16])
def test_cleavage_embryo_has_the_cells_asked_for(count: int) -> None:
    embryo = draw_cleavage(1, n_cells=count, shape=(200, 200))
    assert embryo.cells.shape == (count, 200, 200)
    inside = enclosed_by(embryo.masks["ZP"])
    for cell in embryo.cells:
        assert ndimage.label(cell)[1] == 1
        assert np.all(inside[cell])
        assert cell.sum() > 0.04 * inside.sum() / np.cbrt(count)
    assert np.all(inside[embryo.fragments])


def test_silhouettes_are_complete_where_cells_hide_each_other() -> None:
    embryo = draw_cleavage(2, n_cells=8)
    assert (embryo.cells.sum(axis=0) > 1).any()
    for cell in embryo.cells:
        hull_free = ndimage.binary_fill_holes(cell)
        np.testing.assert_array_equal(hull_free, cell)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15, 0.35, 0.6])
@pytest.mark.parametrize("seed", [0, 1])
def test_fragmentation_ratio_is_the_ratio_of_the_areas(seed: int, share: float) -> None:
    embryo = draw_cleavage(seed, n_cells=4, fragmentation=share, shape=(200, 200))
    whole = embryo.cells.any(axis=0) | embryo.fragments
    assert embryo.fragmentation_ratio == embryo.fragments.sum() / whole.sum()
    assert embryo.fragmentation_ratio == pytest.approx(share, abs=0.04)
    np.testing.assert_array_equal(embryo.masks["embryo"], whole)


def test_usual_fragmentation_is_that_of_annotated_embryos_and_beyond() -> None:
    """Of 109 annotated embryos 11 % have no fragment; the quartiles are 0.03, 0.07 and 0.13, the largest is 0.41."""
    ratios = np.array([draw_cleavage(seed, shape=(72, 72)).fragmentation_ratio for seed in range(100)])
    assert 0.04 < np.mean(ratios == 0) < 0.25
    assert np.quantile(ratios, 0.25) < 0.04
    assert 0.04 < np.median(ratios) < 0.12
    assert np.quantile(ratios, 0.95) > 0.25
    assert 0.4 < ratios.max() < 0.65


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_cluster_of_fragments_is_a_few_regions_without_small_gaps(share: float) -> None:
    regions = []
    for seed in range(4):
        fragments = draw_cleavage(seed, 4, share, (200, 200)).fragments
        regions.append(ndimage.label(fragments)[1])
        gaps, count = ndimage.label(ndimage.binary_fill_holes(fragments) & ~fragments)
        assert all(np.sum(gaps == i + 1) > 50 for i in range(count))
    assert np.median(regions) < 25


@pytest.mark.parametrize("style", STYLES)
def test_fragments_are_rougher_than_cells(style) -> None:
    rougher = []
    for seed in range(6):
        embryo = draw_cleavage(seed, 3, 0.2, (200, 200), style)
        gray = embryo.image.astype(float)
        slope = np.hypot(ndimage.sobel(gray, 0), ndimage.sobel(gray, 1))
        cells = ndimage.binary_erosion(embryo.cells.any(axis=0) & ~embryo.fragments, iterations=2)
        rougher.append(slope[embryo.fragments].mean() > slope[cells].mean())
    assert sum(rougher) >= 5


def brightness_of_fields(style) -> np.ndarray:
    """Median gray within the zona, embryo by embryo."""
    embryos = [draw_cleavage(seed, shape=(80, 80), style=style) for seed in range(30)]
    return np.array([np.median(e.image[enclosed_by(e.masks["ZP"])]) for e in embryos])


@pytest.mark.parametrize(("style", "dark", "bright"), [("incubator", 75, 100), ("microscope", 140, 160)])
def test_pictures_are_as_dark_and_as_bright_as_real_ones(style, dark: float, bright: float) -> None:
    gray = brightness_of_fields(style)
    assert gray.min() < dark
    assert gray.max() > bright


@pytest.mark.parametrize("style", STYLES)
def test_some_pictures_carry_text_in_their_lower_corners(style) -> None:
    """The larger part of the pictures has none."""
    image = np.full((200, 240), 90, np.uint8)
    written = [burn_in(np.random.default_rng(seed), image, 1.0, style) for seed in range(40)]
    changed = [picture != image for picture in written]
    assert 4 < sum(map(np.any, changed)) < 24
    assert not np.any(changed, axis=0)[:150].any()
    assert all(picture.dtype == np.uint8 for picture in written)


def test_an_embryo_lies_within_the_frame() -> None:
    for seed in range(20):
        inside = enclosed_by(draw_cleavage(seed, shape=SMALL).masks["ZP"])
        assert inside.any()
        assert not inside[[0, -1]].any()
        assert not inside[:, [0, -1]].any()


@pytest.mark.parametrize("count", [2, 4, 8])
def test_cells_fill_the_zona_and_overlap_as_annotated_ones(count: int) -> None:
    """Annotated: 70 to 80 % of the space in the zona, the areas of the cells 1.06 to 1.37 times that of their union."""
    filled, overlap = [], []
    for seed in range(8):
        embryo = draw_cleavage(seed, count, 0.05, (150, 150))
        body = embryo.cells.any(axis=0).sum()
        filled.append(body / enclosed_by(embryo.masks["ZP"]).sum())
        overlap.append(embryo.cells.sum() / body)
    assert 0.65 < np.mean(filled) < 0.87
    assert 1.02 < np.mean(overlap) < 1.5


def test_a_blastocyst_has_no_fragments(embryo: SyntheticEmbryo) -> None:
    assert embryo.fragmentation_ratio == 0


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: draw_blastocyst(0, (20, 500)), "64 pixels"),
        (lambda: draw_blastocyst(0, style="electron"), "microscope, incubator"),
        (lambda: draw_cleavage(0, n_cells=0), "n_cells"),
        (lambda: draw_cleavage(0, n_cells=99), "n_cells"),
        (lambda: draw_cleavage(0, fragmentation=0.9), "fragmentation"),
        (lambda: draw_timelapse(0, wells=0), "wells"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        call()


def test_timelapse_divides_and_becomes_a_blastocyst() -> None:
    wells = draw_timelapse(1, wells=2, frames=8, shape=(100, 100))
    assert [len(well) for well in wells] == [8, 8]
    for well in wells:
        hours = [frame.hours for frame in well]
        assert hours == sorted(hours)
        assert np.ptp(np.diff(hours)) == pytest.approx(0)
        counts = [len(frame.cells) for frame in well if "ICM" not in frame.masks]
        assert counts == sorted(counts)
        assert counts[0] == 2
        assert counts[-1] >= 8
        assert "ICM" in well[-1].masks
        areas = [enclosed_by(frame.masks["ZP"]).sum() for frame in well if "ICM" in frame.masks]
        assert areas == sorted(areas)
    assert np.any(wells[0][0].image != wells[1][0].image)


def test_the_well_stays_where_it_is_in_a_timelapse() -> None:
    first, second = draw_timelapse(4, wells=1, frames=8, shape=(100, 100))[0][:2]
    away = ~ndimage.binary_dilation(ndimage.binary_fill_holes(first.masks["ZP"]), iterations=6)
    difference = np.abs(first.image.astype(int) - second.image)[away]
    assert np.median(difference) < 5
