"""Frames of AVI and MP4 exports, through PyAV (the extra ``video``)."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_embryo.io.headers import Header, import_av


def open_video(header: Header) -> Callable[[int], npt.NDArray[Any]]:
    """Frame number -> (Y, X, 3)."""
    return Video(header).frame


class Video:
    """Frames by number: the next one is decoded on, any other is sought by the time stamp that the file gives it.

    Parameters
    ----------
    header
        Of the file.
    """

    def __init__(self, header: Header) -> None:
        self._container = import_av(header.path).open(str(header.path))
        self._stream = self._container.streams.video[0]
        self._stamps = _stamps(self._container)
        self._frames: Iterator[Any] = iter(())
        self._next = -1

    def frame(self, number: int) -> npt.NDArray[Any]:
        """Decode one frame."""
        if number != self._next:
            self._go_to(number)
        frame = next(self._frames, None)
        if frame is None:
            self._next = -1
            raise ValueError(f"frame {number + 1} cannot be decoded")
        self._next = number + 1
        return np.asarray(frame.to_ndarray(format="rgb24"))

    def _go_to(self, number: int) -> None:
        self._container.seek(self._stamps[number], stream=self._stream)
        self._frames = _from_stamp(self._container.decode(self._stream), self._stamps[number])


def _stamps(container: Any) -> list[int]:
    """The time of every frame in the order of showing, without decoding."""
    packets = [packet for packet in container.demux(video=0) if packet.size]
    return sorted(packet.dts if packet.pts is None else packet.pts for packet in packets)


def _from_stamp(frames: Iterator[Any], stamp: int) -> Iterator[Any]:
    for frame in frames:
        if (frame.dts if frame.pts is None else frame.pts) >= stamp:
            yield frame
