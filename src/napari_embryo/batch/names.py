"""Names of results, each derived only from the path of its input, so that other files cannot change it."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

LONGEST = 180
"""Bytes of one part of a name, leaving room for suffixes and temporary names within the usual limit of 255."""

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]|[. ]+$')
"""Characters that some systems forbid in file names, and undecodable bytes."""

_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
"""Names of devices on Windows."""


def digest_of(path: str) -> str:
    """Eight letters that distinguish paths."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def safe_part(name: str, path: str | None = None) -> str:
    """``name`` in a form that any file system accepts; a changed name gets a digest of the path.

    Parameters
    ----------
    name
        One part of a path, without suffix.
    path
        Path for the digest; ``name`` by default.
    """
    safe = _FORBIDDEN.sub("_", name)
    safe = f"_{safe}" if _RESERVED.fullmatch(safe) or safe.startswith(".") else safe
    safe = safe.encode()[:LONGEST].decode(errors="ignore")
    return safe if safe == name else f"{safe}-{digest_of(name if path is None else path)}"


def safe_name(folder: str, title: str, path: str) -> str:
    """The name of a result: subfolders as in the input, then the title.

    Parameters
    ----------
    folder
        Folder of the input, relative to the batch's folder; empty for that folder itself.
    title
        Name of the input without suffix.
    path
        Path of the input, relative to the batch's folder.
    """
    return safe_folder(folder) + safe_part(title, path)


@lru_cache(maxsize=1024)
def safe_folder(folder: str) -> str:
    """Subfolders as in the input, with a slash behind each."""
    return "".join(f"{safe_part(part)}/" for part in folder.replace(os.sep, "/").split("/") if part not in ("", "."))


def told_apart(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Make names unique, even ignoring case, by adding a digest of the path."""
    counts = Counter(map(str.casefold, names))
    return [
        name if counts[name.casefold()] == 1 else f"{name}-{digest_of(path)}"
        for name, path in zip(names, paths, strict=True)
    ]
