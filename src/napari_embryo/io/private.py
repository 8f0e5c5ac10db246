"""What a file may say about the computer it was made on: names of files, but no folders, which often name people."""

import re
from collections.abc import Mapping
from typing import Any

_FOLDER = r"""[^\s/\\:*?"<>|][^/\\:*?"<>|\n]*[/\\]"""
_FOLDERS = re.compile(
    rf"""(?<![\w./\\:])  # where a path begins
    (?:
        (?:[A-Za-z]:[\\/]|\\\\)(?:{_FOLDER})*  # from a drive or a server
        |(?:file://)?(?:/|~[\\/])(?:{_FOLDER})+  # from the root or the user's own folder
    )""",
    re.VERBOSE,
)


def without_folders(value: Any) -> Any:
    """The same text, mapping or list, in which every absolute path is reduced to its last part.

    >>> without_folders({"source": "/home/ada/clinic/R13-0140.tif", "grade": "4AA", "unit": "um/px"})
    {'source': 'R13-0140.tif', 'grade': '4AA', 'unit': 'um/px'}
    """
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    if isinstance(value, Mapping):
        return {key: without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    if isinstance(value, tuple):
        return tuple(without_folders(each) for each in value)
    return value
