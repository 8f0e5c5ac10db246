"""Tables next to images: hours and phases of the published time-lapse set, Micro-Manager's ``metadata.txt``."""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_embryo.io.numbers import number_of

LARGEST_TABLE = 32 * 2**20
"""Larger tables are not read."""

_TABLES = re.compile(r"elapsed|annotation|phases|time", re.IGNORECASE)


@dataclass(frozen=True)
class Sidecar:
    """Information about one embryo from tables next to its images.

    Parameters
    ----------
    hours
        By run number.
    phases
        Rows of a table of phases: ``phase``, ``first_run``, ``last_run``.
    pixel_size_um, spacing_um, hours_per_frame
        Values of the whole acquisition from Micro-Manager.
    sources
        The names of the tables.
    """

    hours: Mapping[int, float] = field(default_factory=dict)
    phases: tuple[Mapping[str, Any], ...] = ()
    pixel_size_um: float | None = None
    spacing_um: float | None = None
    hours_per_frame: float | None = None
    sources: tuple[str, ...] = ()


def read_sidecars(home: Path, embryo: str) -> Sidecar:
    """Look for tables of an embryo next to its images and in the folders next to its folder.

    Parameters
    ----------
    home
        The folder of its images.
    embryo
        Name of the embryo; a table may also be named after its folder.
    """
    names = dict.fromkeys((home.name, embryo))
    times = _first(home, [f"{name}_timeElapsed.csv" for name in names])
    phases = _first(home, [f"{name}_phases.csv" for name in names])
    acquisition = _micro_manager(home / "metadata.txt")
    return Sidecar(
        hours=_hours(times) if times else {},
        phases=_phases(phases) if phases else (),
        sources=tuple(path.name for path in (times, phases) if path),
        **acquisition,
    )


def _first(home: Path, names: list[str]) -> Path | None:
    wanted = {name.lower() for name in names}
    for folder in _folders(home):
        for name in names:
            if _is_small_file(folder / name):
                return folder / name
        for path in _entries(folder) if _TABLES.search(folder.name) or folder == home else ():
            if path.name.lower() in wanted and _is_small_file(path):
                return path
    return None


def _folders(home: Path) -> Iterator[Path]:
    yield from (home, home.parent)
    for above in (home.parent, home.parent.parent):
        yield from (entry for entry in _entries(above) if _TABLES.search(entry.name) and entry.is_dir())


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _is_small_file(path: Path) -> bool:
    return path.is_file() and path.stat().st_size <= LARGEST_TABLE


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return []
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    try:
        return [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), delimiter=delimiter) if row]
    except csv.Error:
        return []


def _hours(path: Path) -> dict[int, float]:
    """``frame_index,time``: hours by run number; a heading is passed over."""
    pairs = [(number_of(row[0]), number_of(row[1].replace(",", "."))) for row in _rows(path) if len(row) >= 2]
    return {int(run): hours for run, hours in pairs if run is not None and hours is not None}


def _phases(path: Path) -> tuple[dict[str, Any], ...]:
    """``tPB2,1,12``: a phase, its first and its last run; a heading is passed over."""
    rows = [(row[0], number_of(row[1]), number_of(row[2])) for row in _rows(path) if len(row) >= 3]
    return tuple(
        {"phase": phase, "first_run": int(first), "last_run": int(last)}
        for phase, first, last in rows
        if first is not None and last is not None
    )


def _micro_manager(path: Path) -> dict[str, Any]:
    if not _is_small_file(path):
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    summary = content.get("Summary") if isinstance(content, dict) else None
    if not isinstance(summary, dict):
        return {}
    frame = next((value for key, value in content.items() if key != "Summary" and isinstance(value, dict)), {})
    interval = number_of(summary.get("Interval_ms"))
    said = {
        "pixel_size_um": number_of(frame.get("PixelSizeUm", summary.get("PixelSize_um"))),
        "spacing_um": number_of(summary.get("z-step_um")),
        "hours_per_frame": None if interval is None else interval / 3.6e6,
    }
    return {key: value for key, value in said.items() if value}
