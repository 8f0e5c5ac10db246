"""The cells of an image: kept small, followed by one rule, listed in rows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from napari_embryo import measure
from napari_embryo.cells import CellFrame, follow
from napari_embryo.image import Cells, EmbryoImage, Finding, Parts
from napari_embryo.results import PlaneResult

Bools = npt.NDArray[np.bool_]
HW = (48, 64)


def disc(y: float, x: float, radius: float) -> Bools:
    rows, columns = np.mgrid[: HW[0], : HW[1]]
    return np.hypot(rows - y, columns - x) <= radius


def cells(*masks: Bools) -> Cells:
    """The first cell has the score 0.9, each other one 0.1 less."""
    stack = np.stack(masks) if masks else np.zeros((0, *HW), bool)
    return Cells(stack, stack.astype(np.float32), 0.9 - 0.1 * np.arange(len(stack), dtype=np.float32))


TWO = (disc(24, 24, 12), disc(24, 38, 10))
A = disc(24, 14, 9)
DIVIDING = (
    cells(A, disc(24, 45, 11)),
    cells(A, disc(24, 45, 11)),
    cells(A, disc(17, 45, 8), disc(32, 45, 8)),
)


def result(finding: Finding, index: tuple[int, ...] = ()) -> PlaneResult:
    rows = [{"frame": index[-1] if index else None, **row} for row in measure.measure_all(finding)]
    return PlaneResult(index, np.zeros(HW, np.uint8), finding, (), rows)


def frames_of(found: Sequence[Cells], axes: int = 1) -> list[CellFrame]:
    places = [(0,) * (axes - 1) + (i,) for i in range(len(found))]
    return [CellFrame.of(result(one, place)) for place, one in zip(places, found, strict=True)]


def image(axes: str, frames: int = 3) -> EmbryoImage:
    return EmbryoImage(np.zeros((*(1,) * (len(axes) - 3), frames, *HW)), axes, "embryo")


def test_a_frame_keeps_masks_and_scores_in_a_fraction_of_the_memory() -> None:
    frame = CellFrame.of(result(cells(*TWO)))
    np.testing.assert_array_equal(frame.masks, TWO)
    assert sum(map(len, frame.runs)) < TWO[0].size // 8
    assert frame.scores == pytest.approx((0.9, 0.8))
    np.testing.assert_array_equal(frame.count(), TWO[0].astype(int) + TWO[1])


def test_parts_of_an_embryo_are_no_cells() -> None:
    found = Parts(("ICM",), np.zeros((1, *HW), bool), np.zeros((1, *HW), np.float32))
    with pytest.raises(TypeError, match="single cells are needed, but ICM were found"):
        CellFrame.of(result(found))


@pytest.mark.parametrize(
    ("axes", "followed", "parents"),
    [("TYX", True, {3: 2, 4: 2}), ("FYX", True, {}), ("TFYX", False, {})],
)
def test_cells_are_followed_along_one_axis_and_divide_in_time_only(
    axes: str, followed: bool, parents: dict[int, int]
) -> None:
    found = follow(frames_of(DIVIDING, len(axes) - 2), image(axes))
    assert (found.followed, dict(found.parents)) == (followed, parents)
    assert bool(found.note) is not followed
    assert len(found.cells) == found.count == (4 if followed else 3)


def test_rows_bear_the_number_by_which_a_cell_is_followed() -> None:
    rows = follow(frames_of(DIVIDING), image("TYX")).rows()
    assert [(row["frame"], row["class"], row["track"], row["parent"]) for row in rows] == [
        (0, "cells", None, None), (0, "cell 1", 1, None), (0, "cell 2", 2, None),
        (1, "cells", None, None), (1, "cell 1", 1, None), (1, "cell 2", 2, None),
        (2, "cells", None, None), (2, "cell 1", 1, None), (2, "cell 3", 3, 2), (2, "cell 4", 4, 2),
    ]  # fmt: skip


def test_a_picture_alone_has_its_cells_by_score() -> None:
    found = follow(frames_of(DIVIDING[2:]), image("TYX", 1))
    assert not found.note
    assert [row["class"] for row in found.rows()] == ["cells", "cell 1", "cell 2", "cell 3"]
    assert found.scores() == pytest.approx([0.9, 0.8, 0.7])


def test_a_picture_that_could_not_be_done_has_no_cells_and_no_rows() -> None:
    first, _, last = frames_of(DIVIDING)
    found = follow([first, CellFrame((1,), HW), last], image("TYX"))
    assert {row["frame"] for row in found.rows()} == {0, 2}


def test_more_cells_than_a_byte_counts_have_labels_of_their_own() -> None:
    found = follow(frames_of([cells(*[disc(24, 24, 3)] * 300)]), image("TYX", 1))
    assert found.cells[-1].labels.max() == 300
