"""Training as a generator."""

from napari_embryo.train.launch import check_devices
from napari_embryo.train.loop import stopped, train

__all__ = ["check_devices", "stopped", "train"]
