"""Frames of videos, through PyAV (the extra ``video``)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from napari_embryo.io.errors import complaint
from napari_embryo.io.header import Header

MOST_REPEATS = 1000
"""Longest gap between frames that counts as repeated frames."""


@dataclass(frozen=True)
class Shown:
    """A decoded frame: its time stamp, and a checksum to recognize it."""

    stamp: int | None
    check: int
    is_key: bool


@dataclass(frozen=True)
class VideoIndex:
    """All frames of a video, in the order in which they are shown.

    Parameters
    ----------
    frames
        Each decoded frame.
    places
        Index of the decoded frame for every frame shown, since a video may repeat frames without storing them.
    size
        Height and width as shown.
    quarter_turns
        Number of rotations by 90 degrees to the left.
    is_damaged
        Whether data follow that cannot be decoded.
    """

    frames: tuple[Shown, ...]
    places: tuple[int, ...]
    size: tuple[int, int]
    quarter_turns: int = 0
    is_damaged: bool = False

    @property
    def has_stamps(self) -> bool:
        """Whether every frame can be identified by its time stamp."""
        stamps = {frame.stamp for frame in self.frames}
        return None not in stamps and len(stamps) == len(self.frames)


def import_av(path: Path) -> Any:
    """PyAV, or an error that says how to get it."""
    try:
        import av
    except ImportError as error:
        raise complaint(
            path,
            "videos need PyAV, which is not installed",
            "the extra 'video' brings it",
            "Run: pip install 'napari-embryo[video]'",
        ) from error
    return av


def video_header(path: Path) -> tuple[Header, ...]:
    """Index a video by decoding every frame once, since frame counts in containers are unreliable."""
    index = index_of(path)
    repeats = len(index.places) - len(set(index.places))
    notes = ["the frame rate of a video says nothing about hours, so none are known"]
    notes += [f"{repeats} frames repeat the one before"] if repeats else []
    notes += ["it is damaged after its last frame here: the rest cannot be decoded"] if index.is_damaged else []
    shape = (len(index.places), *index.size, 3)
    return (Header(path, shape, "TYXS", np.dtype("uint8"), notes=tuple(notes)),)


def index_of(path: Path) -> VideoIndex:
    """The frames of a video; kept, so that a video is indexed once."""
    about = path.stat()
    return _index(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=32)
def _index(path: Path, _size: int, _modified: int) -> VideoIndex:
    av = import_av(path)
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise complaint(path, "there is no image in it", "a video stream is needed", "Export it again")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        frames: list[Shown] = []
        first = None
        is_damaged = False
        try:
            for frame in container.decode(stream):
                first = first or (frame.height, frame.width, frame.rotation)
                frames.append(Shown(frame.pts, _check(frame), bool(frame.key_frame)))
        except av.error.InvalidDataError:
            is_damaged = True
        if first is None:
            raise complaint(path, "no frame of it can be decoded", "a complete video is needed", "Export it again")
        is_even = container.format.name == "avi"
    turns = round(first[2] / 90) % 4
    size = first[:2] if turns % 2 == 0 else (first[1], first[0])
    places = _places(frames) if is_even else tuple(range(len(frames)))
    return VideoIndex(tuple(frames), places, size, turns, is_damaged)


def _places(frames: list[Shown]) -> tuple[int, ...]:
    """Repeat frames of an AVI that are not stored, since its frames follow the clock."""
    stamps = [frame.stamp for frame in frames]
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or known != sorted(set(known)):
        return tuple(range(len(frames)))
    gaps = [min(int(gap), MOST_REPEATS) for gap in np.diff(known)]
    # Of a frame rate that is counted in ticks all gaps are alike: then nothing is repeated.
    least = min(gaps, default=1)
    counts = [max(1, round(gap / least)) if least == 1 else 1 for gap in gaps]
    return tuple(place for place, count in enumerate((*counts, 1)) for _ in range(count))


def _check(frame: Any) -> int:
    return crc32(memoryview(frame.planes[0]))


def open_video(header: Header) -> Callable[[int], npt.NDArray[Any]]:
    """Frame number -> (Y, X, 3)."""
    return Video(header.path).frame


class Video:
    """Frames by number: those that follow are decoded on, for others a key frame is sought and checked.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._index = path, index_of(path)
        self._container = import_av(path).open(str(path))
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[Any] = iter(())
        self._next = -1
        self._last: tuple[int, Any] = (-1, None)

    def frame(self, number: int) -> npt.NDArray[Any]:
        """Decode one frame."""
        place = self._index.places[number]
        if place != self._last[0]:
            self._last = (place, self._decode(place))
        pixels = np.asarray(self._last[1].to_ndarray(format="rgb24"))
        return np.ascontiguousarray(np.rot90(pixels, self._index.quarter_turns))

    def _decode(self, place: int) -> Any:
        if not 0 <= self._next <= place or self._key_before(place) > self._next:
            frame = self._sought(place)
            if frame is not None:
                return frame
            self._rewind()
        return self._decode_on(place)

    def _key_before(self, place: int) -> int:
        return next((i for i in range(place, -1, -1) if self._index.frames[i].is_key), 0)

    def _sought(self, place: int) -> Any:
        """The frame, if it is met and recognized after a jump to the key frame before it."""
        key = self._key_before(place)
        stamp, wanted = self._index.frames[key].stamp, self._index.frames[place]
        if key == 0 or stamp is None or not self._index.has_stamps:
            return None
        self._container.seek(stamp, stream=self._stream)
        self._frames = iter(self._container.decode(self._stream))
        for _ in range(place - key + 1 + 2 * MOST_REORDERED):
            frame = next(self._frames, None)
            if frame is None:
                return None
            if frame.pts == wanted.stamp and _check(frame) == wanted.check:
                self._next = place + 1
                return frame
        return None

    def _rewind(self) -> None:
        self._container.close()
        self._container = import_av(self._path).open(str(self._path))
        self._stream = self._container.streams.video[0]
        self._frames = iter(self._container.decode(self._stream))
        self._next = 0

    def _decode_on(self, place: int) -> Any:
        frame = None
        while self._next <= place:
            frame = next(self._frames, None)
            if frame is None:
                self._next = -1
                raise ValueError(f"frame {place + 1} cannot be decoded")
            self._next += 1
        return frame


MOST_REORDERED = 16
"""More frames than this are not shown in another order than they are stored in."""
