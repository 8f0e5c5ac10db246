"""Shape code: the silhouette of a cell as a small grid of codes."""

from typing import Literal

from pydantic import Field

from napari_embryo.families.family import Family, NetworkSettings


class ShapeCodeSettings(NetworkSettings):
    """VQ-VAE on binary masks: a silhouette as a small grid of codes."""

    family: Literal["shapecode"] = "shapecode"
    classes: tuple[str, ...] = Field(("cell",), min_length=1, max_length=1, description="What the silhouettes show.")
    side: Literal[32, 64] = Field(
        32, description="Side in pixels of the square to which the box of a silhouette is resized."
    )
    grid: Literal[2, 4, 8] = Field(4, description="Codes along each side; a coarser grid is a stronger shape prior.")
    codes: int = Field(128, ge=2, le=4096, description="Number of entries in the codebook.")
    dimension: int = Field(32, ge=4, le=256, description="Length of a code vector.")
    codebook: Literal["ema", "loss"] = Field(
        "ema",
        description="How codes learn. ema: moving averages, with unused codes revived; loss: as in van den Oord et al.",
    )
    reconstruction: Literal["bce", "mse"] = Field(
        "bce", description="Reconstruction loss: the paper's text says cross-entropy, its first equation has squares."
    )

    def __str__(self) -> str:
        return f"{self.grid} x {self.grid} of {self.codes} codes on {self.side} x {self.side} pixels"

    @property
    def silhouette_side(self) -> int:
        """The side of the square."""
        return self.side


FAMILY = Family(
    settings=ShapeCodeSettings,
    title="Shape code (silhouettes of cells)",
    finds="silhouettes",
    about="the silhouettes of single cells as codes, for networks that use them",
    recipes={"random": "shapecode"},
    learns_from="silhouettes",
    draws=False,
    has_shape_code=True,
    use="napari-embryo train vqamodal-from-imagenet --shape-code {model}",
)
