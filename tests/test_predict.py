"""From a picture through a network and back: order, place, size, memory. The networks are fakes with a known answer."""

from collections.abc import Sequence
from functools import partial
from math import ceil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor, nn

from napari_embryo import geometry, models
from napari_embryo.families import RegDeepLabSettings, ResANetSettings, VQAmodalSettings
from napari_embryo.geometry import GRAY_MEAN, GRAY_STD, Geometry, network_input
from napari_embryo.image import Cells, Parts
from napari_embryo.models.checkpoint import Checkpoint, CheckpointInfo
from napari_embryo.predict import (
    VIEWS,
    Prediction,
    Predictor,
    choose_device,
    device,
    embryo_box,
    largest_embryo,
    one_embryo,
    use_bfloat16,
)
from napari_embryo.settings import Preprocessing, SegmentSettings

SIDE = 64
LIMIT = (0.5 - GRAY_MEAN) / GRAY_STD
"""Half-way between black and white; the padding, 0, lies below."""


class BrightParts(nn.Module):
    """ICM: what is bright; TE: nothing; ZP: nothing. Counts the pictures of every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.passes.append(len(images))
        bright = 20 * (images - LIMIT)
        return {"logits": torch.cat((bright, torch.full_like(bright, -9), torch.full_like(bright, -9)), 1)}


class NeedsMemory(BrightParts):
    """Runs out of memory above a number of pictures at once, and on devices without any."""

    def __init__(self, most: int, error: RuntimeError) -> None:
        super().__init__()
        self.most, self.error = most, error

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if len(images) > self.most:
            raise self.error
        return super().forward(images)


def predictor_of(model: nn.Module, batch_size: int = 4, side: int = SIDE, **preprocessing: object) -> Predictor:
    wanted = Preprocessing.model_validate({"height": side, "width": side, **preprocessing})
    info = CheckpointInfo(model=ResANetSettings(), preprocessing=wanted)
    return Predictor(Checkpoint(model, info, "fake"), SegmentSettings(device="cpu", batch_size=batch_size))


def disc(shape: tuple[int, int], center: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.hypot(y - center[0], x - center[1]) <= radius


def picture(mask: np.ndarray) -> np.ndarray:
    return np.where(mask, 230, 20).astype(np.uint8)


def large(width: int) -> np.ndarray:
    """An embryo that fills the picture, told apart by how far right it reaches."""
    mask = np.zeros((80, 100), bool)
    mask[4:76, 4 : 4 + width] = True
    return mask


def fits(mask: np.ndarray, truth: np.ndarray, geometry: Geometry) -> bool:
    """Whether no pixel is wrong beyond one pixel of the network's input on either side of the outline."""
    reach = ceil(max(np.divide(geometry.box_hw, geometry.scaled_hw)))
    block = np.ones((3, 3))
    most = ndimage.binary_dilation(truth, block, reach)
    least = ndimage.binary_erosion(truth, block, reach, border_value=1)
    return bool((mask <= most).all() and (mask >= least).all())


def found_all(found: Sequence[Prediction], truths: Sequence[np.ndarray]) -> bool:
    return all(fits(f.finding.masks[0], t, f.geometry) for f, t in zip(found, truths, strict=True))


# --- order, counting, size ------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(62, 92), max_size=9), st.integers(1, 6))
def test_results_come_in_order_and_no_picture_is_computed_twice(widths: list[int], batch_size: int) -> None:
    model = BrightParts()
    truths = [large(w) for w in widths]
    found = list(predictor_of(model, batch_size).predict(picture(t) for t in truths))
    assert found_all(found, truths)
    assert sum(model.passes) == len(widths)
    assert all(n <= batch_size for n in model.passes)


def test_memory_holds_one_batch() -> None:
    """The first result comes before the second batch is read."""
    read: list[int] = []

    def source() -> object:
        for i in range(9):
            read.append(i)
            yield picture(large(80))

    found = predictor_of(BrightParts(), 3).predict(source())  # type: ignore[arg-type]
    next(found)
    assert read == [0, 1, 2]


@settings(max_examples=20, deadline=None)
@given(st.integers(16, 130), st.integers(16, 130), st.sampled_from(("letterbox", "stretch")))
def test_masks_have_exactly_the_pictures_size(height: int, width: int, fit: str) -> None:
    truth = disc((height, width), (height / 2, width / 2), 0.3 * min(height, width))
    (found,) = predictor_of(BrightParts(), fit=fit).predict([picture(truth)])
    assert found.finding.masks.shape == found.finding.probabilities.shape == (3, height, width)
    assert (found.finding.masks == (found.finding.probabilities >= 0.5)).all()
    assert found.finding.classes == ("ICM", "TE", "ZP")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.float64])
def test_the_pictures_type_does_not_matter(kind: type) -> None:
    truth = large(80)
    scale = {np.uint16: 200}.get(kind, 1)
    (found,) = predictor_of(BrightParts()).predict([picture(truth).astype(kind) * kind(scale)])
    assert found_all([found], [truth])


@pytest.mark.parametrize("shape", [(3, 40, 40), (40,), (40, 40, 3)])
def test_a_picture_has_two_dimensions(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"two dimensions \(Y, X\)"):
        list(predictor_of(BrightParts()).predict([np.zeros(shape, np.uint8)]))


def test_a_flat_picture_is_empty() -> None:
    (found,) = predictor_of(BrightParts()).predict([np.full((50, 60), 128, np.uint8)])
    assert not found.finding.masks.any()


# --- the second look ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("center", "radius"), [((60, 150), 22), ((200, 40), 28), ((120, 120), 34), ((8, 8), 40), ((239, 300), 45)]
)
def test_a_small_embryo_is_looked_at_again_and_put_back_in_its_place(center: tuple[int, int], radius: int) -> None:
    truth = disc((240, 320), center, radius)
    model = BrightParts()
    (found,) = predictor_of(model).predict([picture(truth)])
    assert model.passes == [1, 1]
    mask = found.finding.masks[0]
    assert found_all([found], [truth])
    assert np.argwhere(mask).mean(axis=0) == pytest.approx(np.argwhere(truth).mean(axis=0), abs=0.5)
    top, left, bottom, right = found.geometry.box
    assert truth[top:bottom, left:right].sum() == truth.sum()
    assert found.finding.probabilities.sum() == pytest.approx(truth.sum(), rel=0.15)


def test_the_second_look_is_sharper_than_the_first() -> None:
    truth = disc((240, 320), (60, 150), 12)
    (twice,) = predictor_of(BrightParts()).predict([picture(truth)])
    (once,) = predictor_of(BrightParts(), look_again_below=0).predict([picture(truth)])
    wrong = [int((p.finding.masks[0] != truth).sum()) for p in (twice, once)]
    assert wrong[0] < wrong[1] / 2
    assert fits(twice.finding.masks[0], truth, twice.geometry)
    assert not fits(once.finding.masks[0], truth, twice.geometry)


def test_only_the_small_ones_of_a_batch_are_looked_at_again() -> None:
    small = [disc((80, 100), (40, 20 + 10 * i), 10) for i in range(2)]
    truths = [large(80), small[0], large(90), small[1]]
    model = BrightParts()
    found = list(predictor_of(model, 4).predict([picture(t) for t in truths]))
    assert model.passes == [4, 2]
    assert found_all(found, truths)


@pytest.mark.parametrize(
    ("others", "kept"),
    [
        ([((5, 5), 3)], False),  # a neighbor in the corner
        ([((5, 60), 3), ((60, 5), 2)], False),
        ([((14, 14), 1)], False),  # within the box of the ring, not within the ring
        ([((32, 32), 4)], True),  # an inner cell mass in the ring
    ],
)
def test_only_the_largest_embryo_and_what_it_encloses_stay(
    others: list[tuple[tuple[int, int], int]], kept: bool
) -> None:
    ring = disc((64, 64), (32, 32), 20) & ~disc((64, 64), (32, 32), 15)
    other = np.any([disc((64, 64), center, radius) for center, radius in others], axis=0)
    found = largest_embryo(np.stack((other, ring)))
    np.testing.assert_array_equal(found[0], other if kept else np.zeros_like(other))
    np.testing.assert_array_equal(found[1], ring)


class Compass(nn.Module):
    """Sees the ICM only where a bright place lies left of a dark one: another answer for every view."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        edge = 2 * (images - images.roll(-1, -1))
        return {"logits": torch.cat((edge, edge, edge), 1)}


@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_views_are_averaged_in_place(views: int) -> None:
    """Against the same done by hand, view by view, with NumPy."""
    once = partial(predictor_of, look_again_below=0)  # noise has no embryo to crop to
    picture = np.random.default_rng(3).integers(0, 255, (SIDE, SIDE), np.uint8)
    predictor = once(Compass())
    predictor.settings = predictor.settings.model_copy(update={"views": views})

    def by_hand(turns: int, mirrored: bool) -> np.ndarray:
        seen = np.rot90(picture[:, ::-1] if mirrored else picture, turns)
        found = next(once(Compass()).predict([np.ascontiguousarray(seen)])).finding.probabilities[0]
        back = np.rot90(found, -turns)
        return back[:, ::-1] if mirrored else back

    expected = np.mean([by_hand(*view) for view in VIEWS[:views]], axis=0)
    found = next(predictor.predict([picture])).finding.probabilities[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_views_are_the_eight_symmetries_of_a_square() -> None:
    corner = np.arange(4).reshape(2, 2)
    seen = {np.rot90(corner[:, ::-1] if mirrored else corner, turns).tobytes() for turns, mirrored in VIEWS}
    assert len(seen) == 8


@pytest.mark.parametrize("one_embryo", [True, False])
def test_a_neighbor_is_kept_only_on_request(one_embryo: bool) -> None:
    predictor = predictor_of(BrightParts())
    predictor.settings = predictor.settings.model_copy(update={"one_embryo": one_embryo})
    picture = (disc((64, 64), (34, 34), 24) | disc((64, 64), (4, 4), 3)).astype(np.uint8) * 255
    found = next(predictor.predict([picture])).finding.masks[0]
    assert found[34, 34]
    assert found[4, 4] is np.bool_(not one_embryo)


def test_dirt_does_not_pull_the_second_look_away_from_the_embryo() -> None:
    embryo, dirt = disc((240, 320), (170, 90), 30), disc((240, 320), (30, 290), 4)
    (found,) = predictor_of(BrightParts()).predict([picture(embryo | dirt)])
    assert found_all([found], [embryo])


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (disc((100, 100), (50, 50), 49), None),
        (np.zeros((100, 100), bool), None),
        (disc((100, 100), (50, 50), 10), (37, 37, 64, 64)),
        (disc((100, 100), (0, 0), 10), (0, 0, 12, 12)),
    ],
)
def test_the_box_of_the_second_look(masks: np.ndarray, expected: tuple[int, ...] | None) -> None:
    """A disc of radius 10 spans 21 pixels; 12 % of it is 3 on every side (1 for the cut one of 11)."""
    one = np.stack([masks, np.zeros_like(masks)])
    assert embryo_box(Parts(("ICM", "TE"), one, one.astype(np.float32)), 0.15) == expected


# --- a ratio beside the masks ---------------------------------------------------------------------------------------


class Told(nn.Module):
    """Draws nothing and tells a ratio that depends on the picture's top left corner."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        corner = images[:, 0, 0, 0, None]
        return {"logits": -5 * torch.ones_like(images).expand(-1, 2, -1, -1), "ratio": self.logit + corner}


def told_by(logit: float, quantifier: Predictor | None = None, batch_size: int = 2, views: int = 1) -> Predictor:
    info = CheckpointInfo(model=RegDeepLabSettings(), preprocessing=Preprocessing(height=SIDE, width=SIDE))
    wanted = SegmentSettings(family="regdeeplab", device="cpu", batch_size=batch_size, views=views)
    return Predictor(Checkpoint(Told(logit), info, "fake"), wanted, quantifier)


def ratios(predictor: Predictor, pictures: Sequence[np.ndarray]) -> list[float]:
    return [found.finding.numbers["ratio_regressed"] for found in predictor.predict(pictures)]


def test_a_second_network_tells_the_ratio_of_every_picture() -> None:
    pictures = [np.random.default_rng(i).integers(0, 255, (SIDE, SIDE), np.uint8) for i in range(5)]
    alone = ratios(told_by(1.0), pictures)
    assert len(set(alone)) == 5
    assert ratios(told_by(-4.0, told_by(1.0, batch_size=3)), pictures) == pytest.approx(alone)


def test_the_ratio_is_averaged_over_the_views() -> None:
    """Eight views show each corner twice."""
    one = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), np.uint8)
    corners = [ratios(told_by(0.0), [np.ascontiguousarray(np.rot90(one, turns))])[0] for turns in range(4)]
    assert ratios(told_by(0.0, views=8), [one]) == pytest.approx([np.mean(corners)], abs=1e-5)


# --- memory that runs out -------------------------------------------------------------------------------------------

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "mps", "cpu"])
@pytest.mark.parametrize(("most", "notes"), [(4, 1), (3, 2), (1, 3), (8, 0)])
def test_out_of_memory_halves_the_batch_and_says_so(error: RuntimeError, most: int, notes: int) -> None:
    model = NeedsMemory(most, error)
    predictor = predictor_of(model, batch_size=8)
    truths = [large(62 + i) for i in range(11)]
    found = list(predictor.predict([picture(t) for t in truths]))
    assert found_all(found, truths)
    assert len(found) == sum(model.passes) == 11
    assert len(predictor.notes) == notes
    if notes:
        assert "out of memory" in predictor.notes[-1].text
        assert f"batches of {predictor.batch_size}" in predictor.notes[-1].text


def test_not_even_one_picture_fits() -> None:
    with pytest.raises(MemoryError, match="single image on the processor; close other programs"):
        list(predictor_of(NeedsMemory(0, OUT_OF_MEMORY[0])).predict([picture(large(80))]))


class NeedsProcessor(BrightParts):
    """A graphics card on which nothing fits; ``mps`` stands for it and is never really used."""

    device = "mps"

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        if self.device != "cpu":
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(images)

    def to(self, device: torch.device | None = None, **_: object) -> "NeedsProcessor":  # type: ignore[override]
        self.device = device.type if device else self.device
        return self


def test_the_processor_takes_over_from_a_full_card(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = predictor_of(NeedsProcessor(), batch_size=2)
    monkeypatch.setattr(Tensor, "to", lambda self, *_, **__: self)
    predictor.device = torch.device("mps")
    predictor.model.device = "mps"
    truths = [large(62 + i) for i in range(3)]
    found = list(predictor.predict([picture(t) for t in truths]))
    assert found_all(found, truths)
    assert predictor.device.type == "cpu"
    assert ["batches of 1" in predictor.notes[0].text, "processor" in predictor.notes[1].text] == [True, True]


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("bad"), KeyError("logits")])
def test_other_errors_are_not_hidden(error: Exception) -> None:
    predictor = predictor_of(NeedsMemory(0, error))  # type: ignore[arg-type]
    with pytest.raises(type(error)):
        list(predictor.predict([picture(large(80))]))
    assert predictor.notes == []


# --- devices --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("usable", "wanted", "chosen"),
    [(("cuda", "mps"), "auto", "cuda"), (("mps",), "auto", "mps"), ((), "auto", "cpu"), (("cuda",), "cpu", "cpu")],
)
def test_auto_takes_the_fastest_usable_device(
    monkeypatch: pytest.MonkeyPatch, usable: Sequence[str], wanted: str, chosen: str
) -> None:
    reasons = {name: None if name in (*usable, "cpu") else "not here" for name in ("cuda", "mps", "cpu")}
    monkeypatch.setattr(device, "devices", lambda: reasons)
    assert choose_device(wanted).type == chosen  # type: ignore[arg-type]


def test_a_device_that_is_not_there_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "devices", lambda: {"cuda": "no card was found", "mps": None, "cpu": None})
    with pytest.raises(ValueError, match=r"'cuda' cannot be used: no card was found; use 'auto' or 'cpu'"):
        choose_device("cuda")


def test_precision_is_as_asked_for() -> None:
    cpu = torch.device("cpu")
    assert use_bfloat16("bfloat16", cpu)
    assert not use_bfloat16("float32", cpu)
    assert not use_bfloat16("auto", torch.device("mps"))


# --- a real network -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resanet() -> nn.Module:
    torch.manual_seed(0)
    return models.build(ResANetSettings())


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (50 + i, 71)).astype(np.uint8) for i in range(3)]


def test_predicting_twice_is_equal_to_the_bit(resanet: nn.Module, pictures: list[np.ndarray]) -> None:
    runs = [list(predictor_of(resanet.train(), 3).predict(pictures)) for _ in range(2)]
    for first, second in zip(*runs, strict=True):
        np.testing.assert_array_equal(first.finding.probabilities, second.finding.probabilities)
        assert all(torch.equal(first.outputs[name], second.outputs[name]) for name in first.outputs)


def test_a_picture_does_not_depend_on_its_neighbors(resanet: nn.Module, pictures: list[np.ndarray]) -> None:
    together = list(predictor_of(resanet, 3).predict(pictures))
    for plane, found in zip(pictures, together, strict=True):
        (alone,) = predictor_of(resanet, 1).predict([plane])
        np.testing.assert_allclose(alone.finding.probabilities, found.finding.probabilities, rtol=1e-4, atol=1e-5)


def test_the_network_sees_a_crop_as_if_it_were_the_whole_picture() -> None:
    whole = np.random.default_rng(0).integers(0, 255, (90, 120)).astype(np.uint8)
    pre = Preprocessing(height=32, width=48)
    box = (10, 20, 70, 100)
    cropped = network_input(whole, geometry.plan(whole.shape, pre.net_hw, pre.fit, box), pre)
    alone = whole[10:70, 20:100]
    np.testing.assert_array_equal(cropped, network_input(alone, geometry.plan(alone.shape, pre.net_hw, pre.fit), pre))


def test_what_happens_to_the_second_network_is_told_with_its_role(monkeypatch: pytest.MonkeyPatch) -> None:
    second = told_by(1.0, batch_size=2)
    second.role = "the network of the ratio"
    first = told_by(-4.0, second, batch_size=2)
    look = second._two_looks

    def small(planes: Sequence[np.ndarray]) -> list[Prediction]:
        if len(planes) > 1:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)")
        return look(planes)

    monkeypatch.setattr(second, "_two_looks", small)
    assert len(list(first.predict([np.eye(SIDE)] * 2))) == 2
    assert [(note.level, note.text) for note in first.notes] == [
        ("warning", "the network of the ratio: out of memory on cpu: continuing with batches of 1")
    ]


# --- single cells ---------------------------------------------------------------------------------------------------


def cells_of(*masks: np.ndarray) -> Cells:
    stack = np.stack(masks)
    return Cells(stack, stack.astype(np.float32), np.linspace(0.9, 0.5, len(stack), dtype=np.float32))


def cell(y: float, x: float, radius: float = 10.0) -> np.ndarray:
    ys, xs = np.mgrid[:100, :160]
    return np.hypot(ys - y, xs - x) <= radius


@pytest.mark.parametrize(
    ("places", "kept"),
    [
        ([(50, 40), (50, 55)], [0, 1]),
        ([(50, 40), (50, 64)], [0, 1]),  # a gap of 3 pixels, a sixth of a cell
        ([(50, 40), (50, 64), (50, 88)], [0, 1, 2]),  # one after the other
        ([(50, 140), (50, 40), (50, 55)], [1, 2]),  # the neighbor has the highest score
        ([(50, 40)], [0]),
    ],
)
def test_cells_of_one_embryo_stay_whole_and_a_neighbors_go(places: list[tuple[int, int]], kept: list[int]) -> None:
    found = cells_of(*[cell(*place) for place in places])
    one = one_embryo(found)
    assert one.classes == tuple(f"cell {i + 1}" for i in range(len(kept)))
    np.testing.assert_array_equal(one.masks, found.masks[kept])
    np.testing.assert_array_equal(one.scores, found.scores[kept])
    np.testing.assert_array_equal(one.probabilities, found.probabilities[kept])


def test_no_cell_stays_no_cell() -> None:
    nothing = Cells(np.zeros((0, 9, 9), bool), np.zeros((0, 9, 9), np.float32), np.zeros(0, np.float32))
    assert one_embryo(nothing).classes == ()
    assert embryo_box(nothing, 1.0) is None


def test_the_closer_look_is_at_all_cells_of_the_embryo() -> None:
    top, left, bottom, right = embryo_box(cells_of(cell(50, 40), cell(50, 64), cell(20, 150, 4)), 0.5) or (0, 0, 0, 0)
    assert top < 40 < 60 < bottom
    assert left < 30 < 74 < right < 100


class Unsure(nn.Module):
    """Finds two cells beside each other, and of the second one is hardly sure at the first look."""

    def __init__(self, sure: float) -> None:
        super().__init__()
        self.looks: list[Tensor] = []
        self.sure = sure

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.looks.append(images)
        boxes = torch.tensor([[8.0, 24, 20, 36], [20, 24, 32, 36]])
        scores = torch.tensor([0.9, self.sure if len(self.looks) == 1 else 0.9])
        return {"boxes": boxes[None], "scores": scores[None], "cell_logits": torch.full((1, 2, 4, 4), 9.0)}


@pytest.mark.parametrize(("sure", "is_in_it"), [(0.9, True), (0.3, True), (0.1, False)])
@pytest.mark.parametrize("least_score", [None, 0.001])
def test_a_cell_that_is_hardly_sure_is_looked_at_again(sure: float, is_in_it: bool, least_score: float | None) -> None:
    """The same whatever is shown."""
    info = CheckpointInfo(
        model=VQAmodalSettings(), preprocessing=Preprocessing(height=64, width=64, look_again_below=0.6)
    )
    settings = SegmentSettings(family="vqamodal", device="cpu", precision="float32", maps=())
    predictor = Predictor(Checkpoint(Unsure(sure), info, "fake"), settings, least_score=least_score)
    (found,) = predictor.predict([np.eye(64)])
    _, left, _, right = found.geometry.box
    assert left < 8
    assert (right > 32) is is_in_it


@pytest.mark.parametrize("everything", [True, False])
def test_the_closer_look_is_at_all_embryos_where_all_are_kept(everything: bool) -> None:
    box = embryo_box(cells_of(cell(50, 40), cell(20, 150, 4)), 1.0, everything)
    assert box is not None
    assert (box[3] > 150) is everything
