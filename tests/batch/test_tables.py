"""The tables, as another program reads them."""

import csv
from pathlib import Path

import openpyxl
import pytest

from napari_embryo.batch.tables import unit_of, write_csv, write_workbook

ROWS = [
    {"image": "=1+1", "area_um2": 12.3456789, "weights": "-x.png"},
    {"image": "@x", "area_um2": float("nan"), "hours": 3.0, "weights": "a\nb.png"},
    {"image": "+é", "area_um2": -1.5, "n_parts": 1234567, "weights": "\udce9.png"},
]


def test_csv(tmp_path: Path) -> None:
    """UTF-8; nothing that a program of tables would compute; six digits; the origin stands last."""
    write_csv(tmp_path / "x.csv", lambda: ROWS)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "area_um2", "hours", "n_parts", "weights"]
    assert [row["image"] for row in rows] == ["'=1+1", "'@x", "'+é"]
    assert [row["area_um2"] for row in rows] == ["12.3457", "", "-1.5"]
    assert [row["n_parts"] for row in rows] == ["", "", "1234567"]
    assert [row["weights"] for row in rows] == ["'-x.png", "a\nb.png", "_.png"]


def test_workbook(tmp_path: Path) -> None:
    write_workbook(tmp_path / "x.xlsx", lambda: ROWS, [{"file": "=bad.png", "reason": "cut short"}])
    book = openpyxl.load_workbook(tmp_path / "x.xlsx")
    measured = list(book["measurements"].values)
    assert measured[0] == ("image", "area_um2", "hours", "n_parts", "weights")
    assert measured[1][:2] == ("'=1+1", 12.3457)
    assert list(book["not done"].values)[1] == (None, "'=bad.png", None, "cut short", None)
    assert ("area_um2", "µm²") in list(book["columns"].values)


@pytest.mark.parametrize(
    ("column", "unit"),
    [("area_um2", "µm²"), ("major_axis_um", "µm"), ("area_px", "pixels"), ("hours", "h"), ("class", "")],
)
def test_units(column: str, unit: str) -> None:
    assert unit_of(column) == unit
