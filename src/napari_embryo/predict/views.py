"""Mirrored and rotated views of an image."""

import torch
from torch import Tensor

VIEWS = ((0, False), (0, True), (2, False), (2, True), (1, False), (1, True), (3, False), (3, True))
"""Whether to mirror, and the quarter turns that follow, in the order in which views are added."""


def viewed(inputs: Tensor, turns: int, mirrored: bool) -> Tensor:
    """(..., h, w) mirrored left-right or not, then rotated by quarter turns."""
    return torch.rot90(inputs.flip(-1) if mirrored else inputs, turns, (-2, -1))
