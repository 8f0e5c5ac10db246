"""Cells followed from frame to frame, against time-lapses whose truth is known."""

from collections.abc import Sequence
from math import cos, pi, sin

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_embryo.image import Cells
from napari_embryo.synthetic import draw_timelapse
from napari_embryo.tracking import LONGEST_GAP, Tracks, link, tracks

HW = (80, 100)
Disc = tuple[float, float, float]
"""y, x, radius."""
HALF_A_BALL, A_THIRD = 0.5 ** (1 / 3), (1 / 3) ** (1 / 3)


def discs(*each: Disc) -> np.ndarray:
    y, x = np.mgrid[: HW[0], : HW[1]]
    nothing = np.zeros((0, *HW), bool)
    return np.stack([np.hypot(y - cy, x - cx) <= r for cy, cx, r in each]) if each else nothing


A, B, C = (25.0, 25.0, 14.0), (50.0, 40.0, 14.0), (30.0, 75.0, 12.0)


def halves(of: Disc, turn: float = 0.0) -> tuple[Disc, Disc]:
    """Two balls of half a ball's volume, side by side in its place."""
    y, x, r = of
    dy, dx = r / 2 * sin(turn), r / 2 * cos(turn)
    return (y - dy, x - dx, r * HALF_A_BALL), (y + dy, x + dx, r * HALF_A_BALL)


def thirds(of: Disc) -> tuple[Disc, Disc, Disc]:
    """Three balls of a third of a ball's volume, around its center."""
    y, x, r = of
    angles = (0.0, 2 * pi / 3, 4 * pi / 3)
    first, second, third = ((y + r / 2 * sin(a), x + r / 2 * cos(a), r * A_THIRD) for a in angles)
    return first, second, third


@pytest.mark.parametrize("seed", range(4))
def test_a_drawn_embryos_cells_keep_their_identity_between_divisions(seed: int) -> None:
    """In any order; drawn anew at each division, so that lineages are tested with discs."""
    rng = np.random.default_rng(seed)
    frames, truth = [], []
    for embryo in draw_timelapse(seed, 1, 24, (96, 96))[0]:
        order = rng.permutation(len(embryo.cells))
        frames.append(embryo.cells[order] if len(order) else np.zeros((0, 96, 96), bool))
        truth.append(order)
    found = link(frames)
    assert [len(ids) for ids in found.ids] == [len(order) for order in truth]
    stages = {len(order) for order in truth} - {0}
    assert len(stages) >= 3
    for stage in stages:
        seen = {
            tuple(ids[place] for place in np.argsort(order))
            for ids, order in zip(found.ids, truth, strict=True)
            if len(order) == stage
        }
        assert len(seen) == 1, stage


FRAMES = {
    "nothing": ([(), (), ()], [(), (), ()], {}),
    "one picture": ([(A, B)], [(1, 2)], {}),
    "still": ([(A, B, C)] * 3, [(1, 2, 3)] * 3, {}),
    "another order": ([(A, B, C), (C, A, B)], [(1, 2, 3), (3, 1, 2)], {}),
    "a division": ([(A, C), (*halves(A), C), (*halves(A), C)], [(1, 2), (3, 4, 2), (3, 4, 2)], {3: 1, 4: 1}),
    "a division across": ([(A,), halves(A, pi / 2)], [(1,), (2, 3)], {2: 1, 3: 1}),
    "both divide": (
        [(A, C), (*halves(C), *halves(A, 1.0))],
        [(1, 2), (3, 4, 5, 6)],
        {3: 2, 4: 2, 5: 1, 6: 1},
    ),
    "a division in a frame without cells": ([(A,), (), halves(A), halves(A)], [(1,), (), (2, 3), (2, 3)], {2: 1, 3: 1}),
    "a division in frames without cells": ([(A,), (), (), halves(A)], [(1,), (), (), (2, 3)], {2: 1, 3: 1}),
    "a division, one daughter seen later": (
        [(A, C), (halves(A)[0], C), (*halves(A), C), (*halves(A), C)],
        [(1, 2), (3, 2), (3, 4, 2), (3, 4, 2)],
        {3: 1, 4: 1},
    ),
    "into three": ([(A,), thirds(A), thirds(A)], [(1,), (2, 3, 4), (2, 3, 4)], {2: 1, 3: 1, 4: 1}),
    "into three, one seen later": ([(A,), thirds(A)[:2], thirds(A)], [(1,), (2, 3), (2, 3, 4)], {2: 1, 3: 1, 4: 1}),
    "into four between two frames": (
        [(A,), (*halves(halves(A)[0], pi / 2), *halves(halves(A)[1], pi / 2))],
        [(1,), (2, 3, 4, 5)],
        dict.fromkeys((2, 3, 4, 5), 1),
    ),
    "a fragment beside daughters is none": (
        [(A,), (*halves(A), (25.0, 25.0, 3.0))],
        [(1,), (2, 3, 4)],
        {2: 1, 3: 1},
    ),
    "a cell as large beside it is no daughter": ([(A,), (A, (40.0, 30.0, 14.0))], [(1,), (1, 2)], {}),
    "a small one upon a cell that stays is none": ([(A,), (A, (28.0, 25.0, 5.0))], [(1,), (1, 2)], {}),
    "one comes from afar": ([(A,), (A, C)], [(1,), (1, 2)], {}),
    "one goes": ([(A, C), (C,)], [(1, 2), (2,)], {}),
    "first empty": ([(), (A,), (A,)], [(), (1,), (1,)], {}),
    "another cell, far away": ([(A,), (C,)], [(1,), (2,)], {}),
}


@pytest.mark.parametrize("case", sorted(FRAMES))
def test_constructed(case: str) -> None:
    frames, ids, parents = FRAMES[case]
    assert link(discs(*each) for each in frames) == Tracks(tuple(ids), parents)


@pytest.mark.parametrize("missed", range(LONGEST_GAP + 2))
def test_a_cell_that_is_missed_for_a_few_frames_is_the_same_cell(missed: int) -> None:
    found = link([discs(A, C), *[discs(C)] * missed, discs(A, C)])
    assert found.ids[-1] == ((1, 2) if missed < LONGEST_GAP else (3, 2))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.permutations(range(5)), min_size=2, max_size=5), st.integers(0, 999))
def test_moving_cells_in_any_order(orders: Sequence[Sequence[int]], seed: int) -> None:
    """A row of five that touch one another and move by less than a fifth of their diameter."""
    rng = np.random.default_rng(seed)
    places = np.array([(40.0, 10.0 + 19 * i) for i in range(5)])
    frames = []
    for order in orders:
        turn = rng.uniform(0, 2 * pi, 5)
        places = places + 0.8 * np.stack((np.sin(turn), np.cos(turn)), 1)
        frames.append(discs(*[(*places[i], 10.0) for i in order]))
    found = link(frames)
    names = dict(zip(orders[0], found.ids[0], strict=True))
    assert found.ids == tuple(tuple(names[i] for i in order) for order in orders)
    assert not found.parents


def test_what_a_network_found_is_linked_by_its_masks() -> None:
    frames = [discs(A, C), discs(C, *halves(A))]
    found = [Cells(m, m.astype(np.float32), m.mean((1, 2))) for m in frames]
    assert tracks(found) == link(frames) == Tracks(((1, 2), (2, 3, 4)), {3: 1, 4: 1})
    assert tracks(found).count == 4
