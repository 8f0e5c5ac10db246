"""The description of a family of networks; needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

LearnsFrom = Literal["pictures", "cells", "silhouettes"]

SEGMENT_WITH_IT = "napari-embryo segment --weights {model} IMAGES"


class Settings(BaseModel):
    """Frozen, validated settings; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(Settings):
    """Settings that rebuild a network; every family has a subclass, whose ``family`` defaults to the family's name.

    Parameters
    ----------
    family
        Name of the family.
    classes
        What the network finds or measures.
    """

    family: str
    classes: tuple[str, ...]

    @property
    def tells_a_ratio(self) -> bool:
        """Whether the network estimates the fragmentation ratio."""
        return False

    @property
    def silhouette_side(self) -> int | None:
        """Side in pixels of its inputs if these are single silhouettes; None for networks that take images."""
        return None

    @property
    def shape_code(self) -> "NetworkSettings | None":
        """Settings of the shape code within the network, which is trained beforehand."""
        return None

    def with_shape_code(self, shape: "NetworkSettings") -> Self:
        """The same network with another shape code; no change for a network without one."""
        return self


@dataclass(frozen=True)
class MapInfo:
    """Description of an attention map.

    Parameters
    ----------
    key
        Name of the network's output that contains it.
    channel
        Channel of that output; None for the mean of all.
    window
        Display range: fixed for the module, never the map's own extremes.
    meaning
        One-line explanation, used by the tooltip, the layer and the file.
    """

    key: str
    channel: int | None
    window: tuple[float, float]
    meaning: str


@dataclass(frozen=True, eq=False)
class Family:
    """A family of networks.

    Parameters
    ----------
    settings
        Class of the settings that rebuild its networks.
    title
        Name shown in lists of networks.
    finds
        What it finds, in a word; the last part of the names of its layers.
    about
        What it finds, as a phrase for the help.
    recipes
        Starting weights -> recipe usually used with them; the usual start comes first.
    learns_from
        Images with masks or ratios, images with outlined cells, or silhouettes of single cells.
    draws
        Whether it draws masks, so that it can be used for segmentation.
    tells_a_ratio
        Whether it can estimate the fragmentation ratio.
    has_shape_code
        Whether its weights are or may contain a shape code.
    ships
        Whether the program has bundled weights.
    maps
        Description of each of its attention maps by name.
    usual_maps
        Maps kept by default.
    cam_layers
        Layers available for Grad-CAM with the default settings, from the deepest to the last.
    additions
        Settings that training can add to weights without them -> their value in such weights.
    use
        Command that uses a trained model, with ``{model}`` for its name.
    caveat
        What a user should know before training, if the model cannot be used for segmentation.
    """

    settings: type[NetworkSettings]
    title: str
    finds: str
    about: str
    recipes: Mapping[str, str]
    learns_from: LearnsFrom = "pictures"
    draws: bool = True
    tells_a_ratio: bool = False
    has_shape_code: bool = False
    ships: bool = False
    maps: Mapping[str, MapInfo] = field(default_factory=dict)
    usual_maps: tuple[str, ...] = ()
    cam_layers: tuple[str, ...] = ()
    additions: Mapping[str, Any] = field(default_factory=dict)
    use: str = SEGMENT_WITH_IT
    caveat: str = ""

    @property
    def name(self) -> str:
        """Name in settings, checkpoints and on the command line."""
        return str(self.settings.model_fields["family"].default)

    @property
    def has_imagenet_encoder(self) -> bool:
        """Whether training can start from an encoder that was trained on ImageNet."""
        return "imagenet" in self.recipes

    @property
    def needs_cells(self) -> bool:
        """Whether it learns from outlined cells, with or without their image."""
        return self.learns_from != "pictures"

    @property
    def is_shape_code(self) -> bool:
        """Whether its networks are shape codes, which learn from silhouettes without any picture."""
        return self.learns_from == "silhouettes"

    @property
    def finds_cells(self) -> bool:
        """Whether it draws single cells with complete masks instead of the parts of an embryo."""
        return self.draws and self.learns_from == "cells"
