"""What the program asks of a family of networks, as one value; no torch is needed to answer it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

LearnsFrom = Literal["pictures", "cells", "silhouettes"]

SEGMENT_WITH_IT = "napari-embryo segment --weights {model} IMAGES"


class Settings(BaseModel):
    """A frozen, validated value; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkSettings(Settings):
    """What rebuilds a network; every family has a subclass, which gives ``family`` the family's name.

    Parameters
    ----------
    family
        Name of the family.
    classes
        What the network finds, or what it tells something about.
    """

    family: str
    classes: tuple[str, ...]

    @property
    def tells_a_ratio(self) -> bool:
        """Whether the network estimates the fragmentation ratio, and learns it."""
        return False

    @property
    def silhouette_side(self) -> int | None:
        """Side in pixels of the squares it learns from, where these are single silhouettes instead of pictures."""
        return None

    @property
    def shape_code(self) -> "NetworkSettings | None":
        """Settings of the shape code that the network draws with, which is learned beforehand."""
        return None

    def with_shape_code(self, shape: "NetworkSettings") -> Self:
        """The same network with another shape code; one without any stays as it is."""
        return self


@dataclass(frozen=True)
class MapInfo:
    """What one attention map shows.

    Parameters
    ----------
    key
        Name of the network's output that holds it.
    channel
        Which channel of that output; None for the mean of all.
    window
        Range to display it in: fixed for the module, never the map's own extremes.
    meaning
        One line for a reader: the tooltip, the layer and the file all say this.
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
        What lists of networks show.
    finds
        What it finds, in a word; the end of its layers' names.
    about
        What it finds, in the words of the help.
    recipes
        Start -> the recipe it is usually trained with from there; the usual start first.
    learns_from
        Whole pictures with masks or ratios, pictures with outlined cells, or the silhouettes of single cells.
    draws
        Whether it draws masks on a picture, so that it can be used to segment.
    tells_a_ratio
        Whether it can estimate the fragmentation ratio.
    has_shape_code
        Whether its weights are, or may hold, a shape code.
    ships
        Whether weights come with the program.
    maps
        What each of its attention maps shows, by the name a user chooses.
    usual_maps
        The maps that are kept by default.
    cam_layers
        Layers that Grad-CAM can look at with the default settings, from the deepest to the last.
    additions
        Settings that a training may add to weights without them -> their value in such weights.
    use
        Command that uses a trained model; ``{model}`` stands for its name.
    caveat
        What a user should know before training, where the model cannot be used to segment.
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
        """What settings, checkpoints and the command line call it."""
        return str(self.settings.model_fields["family"].default)

    @property
    def has_imagenet_encoder(self) -> bool:
        """Whether training can start from an encoder that was trained on ImageNet."""
        return "imagenet" in self.recipes

    @property
    def needs_cells(self) -> bool:
        """Whether it learns from outlined cells, with or without the picture around them."""
        return self.learns_from != "pictures"

    @property
    def is_shape_code(self) -> bool:
        """Whether its networks are shape codes, which learn from silhouettes without any picture."""
        return self.learns_from == "silhouettes"

    @property
    def finds_cells(self) -> bool:
        """Whether it draws single cells, each with a complete mask, instead of the parts of an embryo."""
        return self.draws and self.learns_from == "cells"
