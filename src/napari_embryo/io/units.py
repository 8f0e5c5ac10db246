"""Lengths and times as files write them, in micrometers and hours."""

UM = {
    "pm": 1e-6, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "nanometer": 1e-3, "millimeter": 1e3, "mm": 1e3, "cm": 1e4,
    "centimeter": 1e4, "dm": 1e5, "m": 1e6, "meter": 1e6, "in": 25400.0, "inch": 25400.0, "å": 1e-4, "Å": 1e-4,
    "angstrom": 1e-4, "picometer": 1e-6, "decimeter": 1e5,
}  # fmt: skip
"""Micrometers in each unit of length that files name."""

HOURS = {
    "nanosecond": 1 / 3.6e12, "microsecond": 1 / 3.6e9,
    "ms": 1 / 3.6e6, "msec": 1 / 3.6e6, "millisecond": 1 / 3.6e6, "s": 1 / 3600, "sec": 1 / 3600, "second": 1 / 3600,
    "seconds": 1 / 3600, "min": 1 / 60, "minute": 1 / 60, "minutes": 1 / 60, "h": 1.0, "hr": 1.0, "hour": 1.0,
    "hours": 1.0, "d": 24.0, "day": 24.0,
}  # fmt: skip
"""Hours in each unit of time that files name."""


def times(value: float | None, unit: float | None) -> float | None:
    """A product of two known numbers."""
    return None if value is None or unit is None else value * unit


def pixel_size(y: float | None, x: float | None) -> tuple[float, float] | None:
    """Height and width of a pixel; one of which only one is known is square."""
    y, x = (y or x), (x or y)
    return (y, x) if x is not None and y is not None and min(x, y) > 0 else None


def spread(step: float | None, n: int) -> tuple[float, ...] | None:
    """``n`` values at one distance from 0 on."""
    return tuple(step * i for i in range(n)) if step and n else None
