"""Which part of a data set a file or a folder holds, as far as its name tells."""

import re
from collections.abc import Iterable

_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_ALIKE = {"train": ("train",), "validation": ("validation", "test"), "test": ("test", "validation")}


def part_of(*names: str) -> str | None:
    """The only part that the names tell: ``train``, ``validation`` or ``test``.

    >>> part_of("update_test_2020"), part_of("training", "image_2"), part_of("train_and_val"), part_of("latest")
    ('test', 'train', None, None)
    """
    words = (word for name in names for word in re.split(r"[^a-z]+", name.lower()))
    told = {_WORDS[word] for word in words if word in _WORDS}
    return told.pop() if len(told) == 1 else None


def part_meant(part: str | None, there: Iterable[str | None]) -> str | None:
    """Which of the parts that are there is meant; what one calls test is another one's validation.

    >>> part_meant("validation", ["train", "test"]), part_meant("train", ["test", None])
    ('test', None)
    """
    present = set(there)
    return next((each for each in _ALIKE.get(part or "", ()) if each in present), None)
