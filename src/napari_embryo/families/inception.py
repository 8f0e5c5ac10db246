"""Inception v3: the baseline for the ratio of AttnRegDeepLab."""

from typing import Literal

from pydantic import Field, field_validator

from napari_embryo.families.classes import FRAGMENT_CLASSES, fragment_classes_only
from napari_embryo.families.family import Family, NetworkSettings


class InceptionSettings(NetworkSettings):
    """Inception v3 (Szegedy et al. 2016), RegDeepLab's baseline: the ratio alone, trained from random weights."""

    family: Literal["inception"] = "inception"
    classes: tuple[str, ...] = Field(
        FRAGMENT_CLASSES, description="What the ratio is of, and the whole it is a part of."
    )
    dropout: float = Field(0.4, ge=0, lt=1, description="Dropout before the last layer.")

    _classes = field_validator("classes")(fragment_classes_only)

    @property
    def tells_a_ratio(self) -> bool:
        """Always true: it estimates nothing else."""
        return True


FAMILY = Family(
    settings=InceptionSettings,
    title="Inception v3 (ratio alone, baseline)",
    finds="ratio",
    about="the fragmentation ratio of a cleavage-stage embryo, without masks",
    recipes={"random": "regdeeplab-inception"},
    draws=False,
    tells_a_ratio=True,
    caveat="Inception estimates a ratio and draws no masks, so the model cannot be used in Segment",
)
