"""What the labels of annotations mean, however they are spelled."""

import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from napari_embryo.families import BLASTOCYST_CLASSES, FRAGMENT_CLASSES

CELL = "cell"
"""A blastomere; every other spelling of it becomes this one."""
RINGS = ("zp_outer", "zp_inner", "cavity", "icm")
"""The outlines from which the parts of a blastocyst are computed."""
_SAME = {
    "cells": CELL,
    "blastomere": CELL,
    "blastomeres": CELL,
    "fragments": "fragment",
    "polar_bodies": "polar_body",
    "inner_cell_mass": "icm",
    "trophectoderm": "te",
    "zona_pellucida": "zp",
}
_PARTS = tuple(name.lower() for name in BLASTOCYST_CLASSES)
_KNOWN = frozenset((CELL, "polar_body", *_PARTS, *RINGS, *FRAGMENT_CLASSES))
ALWAYS_THERE = frozenset((*_PARTS, FRAGMENT_CLASSES[-1]))
"""Classes that every embryo has: where one is not drawn, it was not annotated, rather than absent."""


def canonical(label: str) -> str:
    """The name of what a label means; capitals, spaces and plurals make no difference.

    >>> canonical("Cell "), canonical("ZP Outer"), canonical("blastomere"), canonical("cel")
    ('cell', 'zp_outer', 'cell', 'cel')
    """
    name = re.sub(r"[\s_-]+", "_", label.strip().casefold()).strip("_")
    return _SAME.get(name, name)


def has_a_meaning(label: str, classes: Iterable[str]) -> bool:
    """Whether a canonical label is known or one of the classes, so that leaving it out needs no mention."""
    return label in _KNOWN or label in map(canonical, classes)


def with_suggestion(label: str, classes: Iterable[str]) -> str:
    """A label as it was written, followed by the known one that it resembles.

    >>> with_suggestion("cel", ()), with_suggestion("dirt", ())
    ("'cel' (did you mean 'cell'?)", "'dirt'")
    """
    near = get_close_matches(canonical(label), sorted({*_KNOWN, *map(canonical, classes)}), 1, 0.75)
    return f"{label!r} (did you mean {near[0]!r}?)" if near else repr(label)


def are_cells(classes: Sequence[str]) -> bool:
    """Whether the classes are single cells, each with a silhouette of its own, rather than regions.

    >>> are_cells(("cell",)), are_cells(("fragment", "embryo"))
    (True, False)
    """
    return bool(classes) and {canonical(name) for name in classes} == {CELL}


def known_classes(classes: Sequence[str], painted: npt.ArrayLike, told: Collection[str]) -> npt.NDArray[np.bool_]:
    """Which classes are known for an image: the rule of all readers for unknown versus empty.

    A class that is painted is known. One that is not painted is known to be absent only if its source annotates it and
    an embryo may lack it, such as fragments.

    Parameters
    ----------
    classes
        In the order of the masks.
    painted
        For each class, whether any pixel of this image belongs to it.
    told
        Canonical names of the classes that the source annotates: those painted on any of its images, those with a mask
        file for this image, or those named by the annotation itself.

    Returns
    -------
    ndarray
        (C,) bool.
    """
    names = [canonical(name) for name in classes]
    may_lack = np.array([name in told and name not in ALWAYS_THERE for name in names], bool)
    known: npt.NDArray[np.bool_] = np.asarray(painted, bool) | may_lack
    return known
