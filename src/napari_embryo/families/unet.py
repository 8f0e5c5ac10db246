"""U-Net: the baseline of ResA-Net."""

from typing import Literal

from pydantic import Field

from napari_embryo.families.classes import BLASTOCYST_CLASSES
from napari_embryo.families.family import Family, NetworkSettings


class UNetSettings(NetworkSettings):
    """U-Net (Ronneberger et al. 2015), the baseline of the ResA-Net paper, trained from random weights."""

    family: Literal["unet"] = "unet"
    classes: tuple[str, ...] = Field(
        BLASTOCYST_CLASSES, min_length=1, description="Classes with one binary output each."
    )
    base_channels: int = Field(
        64, ge=4, le=128, description="Channels of the first level; every one of the four levels below doubles them."
    )


FAMILY = Family(
    settings=UNetSettings,
    title="U-Net (blastocyst, baseline)",
    finds="blastocyst",
    about="the parts of a blastocyst (a baseline without bundled weights)",
    recipes={"random": "unet-baseline"},
    cam_layers=("bottleneck", "decoder 1/8", "decoder 1/4", "decoder 1/2", "last"),
)
