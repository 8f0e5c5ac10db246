"""JSON files of annotations, read only when they cannot exhaust the memory."""

import json
from pathlib import Path
from typing import Any

_MOST_BYTES = 2**30
"""What a file may take in memory once it is parsed."""
_COST = {b"{": 200, b"[": 80, b",": 32, b'"': 40}
"""Bytes that Python needs for what each of these characters begins, roughly."""


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    ValueError
        If it is not JSON, or too large or too deeply nested to be an annotation.
    FileNotFoundError
        If there is no such file.
    """
    text = path.read_bytes()
    needed = len(text) + sum(cost * text.count(character) for character, cost in _COST.items())
    if needed > _MOST_BYTES:
        raise ValueError(
            f"{path}: it would take about {needed / 2**30:.1f} GB of memory, more than the 1 GB allowed; split it"
        )
    try:
        return json.loads(text.decode("utf-8-sig"))
    except RecursionError as error:
        raise ValueError(f"{path}: its lists are nested too deeply to be an annotation") from error
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
