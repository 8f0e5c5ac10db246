"""Measurements in words."""

from collections.abc import Iterable, Mapping
from typing import Any

from napari_embryo.notes import counted


def said(rows: Iterable[Mapping[str, Any]]) -> str:
    """One sentence about an image's rows: ratio and grade of the fragments, number of cells, or areas."""
    rows = list(rows)
    if cells := cells_said(rows):
        return f"{cells}."
    graded = next((row for row in rows if row.get("ratio_basis")), None)
    if graded is not None:
        return ratio_said(graded)
    areas = [f"{row['class']} {area_said(row)}" for row in rows]
    return f"Areas: {', '.join(areas)}." if areas else ""


def area_said(row: Mapping[str, Any]) -> str:
    """The area in square micrometers where the pixel size is known, otherwise in pixels."""
    return f"{row['area_px']:,} px" if row.get("area_um2") is None else f"{row['area_um2']:,.0f} µm²"


def cells_said(rows: Iterable[Mapping[str, Any]]) -> str:
    """Number of cells in an image, or the range over a stack; empty if cells were not counted."""
    counts = sorted({row["n_cells"] for row in rows if row.get("n_cells") is not None})
    if not counts:
        return ""
    if not counts[-1]:
        return "No cell found"
    fewest = f"{counts[0]} to " if len(counts) > 1 else ""
    return fewest + counted(counts[-1], "cell")


def ratio_said(row: Mapping[str, Any]) -> str:
    """Both ratios of a row and their grade."""
    return f"{ratios_said(row)}: {grade_said(row)}."


def ratios_said(row: Mapping[str, Any]) -> str:
    """The ratio from the mask and the regressed one."""
    from_mask, regressed = row["ratio_from_mask"], row["ratio_regressed"]
    parts = ["no embryo in the mask" if from_mask is None else f"{percent(from_mask)} of the embryo (mask)"]
    parts += [] if regressed is None else [f"{percent(regressed)} (regression)"]
    return f"Fragments {', '.join(parts)}"


def grade_said(row: Mapping[str, Any]) -> str:
    """The grade with its interval, or both grades if mask and regression differ."""
    if row["grade"] is None:
        return "no grade"
    if row["grades_apart"]:
        return f"grade {row['grade_from_mask']} (mask), {row['grade']} (regression)"
    return f"grade {row['grade']} ({100 * row['grade_low']:.0f}-{100 * row['grade_high']:.0f} %)"


def percent(ratio: float) -> str:
    return f"{100 * ratio:.1f} %"


def far_apart(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows in which mask and regression disagree by more than one grade."""
    return [row for row in rows if (row.get("grades_apart") or 0) > 1]


def far_apart_said(rows: Iterable[Mapping[str, Any]]) -> str:
    """How many planes of an image :func:`far_apart` finds, and which; empty if none."""
    graded = [row for row in rows if row.get("ratio_basis")]
    found = far_apart(graded)
    if not found:
        return ""
    if len(graded) == 1:
        return f"mask and regression are {found[0]['grades_apart']} grades apart. {ratio_said(found[0])}"
    places = [_place_said(row) for row in found]
    more = f" and {len(places) - 5} more" if len(places) > 5 else ""
    return (
        f"mask and regression are more than a grade apart in {len(found)} of {len(graded)} images: "
        f"{', '.join(places[:5])}{more}"
    )


def _place_said(row: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {row[name]}" for name in ("frame", "plane") if row.get(name) is not None)


def range_said(rows: Iterable[Mapping[str, Any]]) -> str:
    """Range of fragmentation or of cell counts over a stack; empty for other results."""
    rows = list(rows)
    if cells := cells_said(rows):
        return f"{cells}."
    graded = [row for row in rows if row.get("grade")]
    if not graded:
        return ""
    ratios = [row["ratio_from_mask"] if row["ratio_regressed"] is None else row["ratio_regressed"] for row in graded]
    grades = sorted(row["grade"] for row in graded)
    return f"Fragments {percent(min(ratios))} to {percent(max(ratios))}, grades {grades[0]} to {grades[-1]}."
