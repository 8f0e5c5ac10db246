"""VQ amodal: the complete silhouette of every cell, including parts covered by other cells."""

from typing import Literal, Self

from pydantic import Field

from napari_embryo.families.family import Family, MapInfo, NetworkSettings
from napari_embryo.families.shapecode import ShapeCodeSettings


class VQAmodalSettings(NetworkSettings):
    """Mask R-CNN for complete silhouettes: an occlusion branch, a shape code, and a refinement."""

    family: Literal["vqamodal"] = "vqamodal"
    classes: tuple[str, ...] = Field(
        ("cell",), min_length=1, description="What is found; cells in the embryos of the paper."
    )
    encoder: Literal["v1", "v1.5"] = Field(
        "v1.5",
        description="Where the encoder strides: v1.5 as torchvision's weights expect, v1 as in the network of He et "
        "al.",
    )
    head: Literal["vq", "fcn"] = Field("vq", description="vq: the shape code; fcn: the mask head of Mask R-CNN.")
    refine: bool = Field(
        True,
        description="Combine the decoded silhouette with the features of the cell; otherwise the silhouette is the "
        "mask.",
    )
    occlusion: Literal["none", "branch", "asn"] = Field(
        "branch",
        description="branch: a map of where cells overlap, learned as an auxiliary task; asn: every cell is "
        "classified as occluded or not, as for KINS.",
    )
    translucent: bool = Field(
        True,
        description="Overlap is where two complete cells lie; otherwise it is where the visible part of a cell is "
        "missing.",
    )
    shape: ShapeCodeSettings = Field(default_factory=ShapeCodeSettings, description="The frozen VQ-VAE.")
    code_loss: Literal["bce", "ce"] = Field(
        "bce", description="bce: the paper's third equation; ce: cross-entropy over the K codes."
    )
    reduction: Literal["mean", "sum"] = Field(
        "mean",
        description="How losses are reduced; sum is the paper to the letter, with its weight of 0.01 for the "
        "occlusion.",
    )
    smallest_anchor: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Side of the anchors of the finest level as a share of the image's; it doubles at every level.",
    )
    score_threshold: float = Field(0.05, ge=0, le=1, description="Lowest score of a cell that is kept.")
    box_nms: float = Field(
        0.8, gt=0, le=1, description="Overlap (IoU) above which two boxes count as one; 0.5 deletes real cells."
    )
    mask_nms: float = Field(
        0.4,
        gt=0,
        le=1,
        description="Overlap (IoU) above which the less certain of two masks gets a lower score (Soft-NMS).",
    )
    detections: int = Field(20, ge=1, le=300, description="Largest number of cells in an image.")

    @property
    def shape_code(self) -> ShapeCodeSettings | None:
        """The shape code, if the mask head has one."""
        return self.shape if self.head == "vq" else None

    def with_shape_code(self, shape: NetworkSettings) -> Self:
        """The same network with another shape code."""
        return self.model_copy(update={"shape": shape})


MAPS = {
    "occlusion": MapInfo("occlusion_probability", None, (0, 1), "occlusion branch: how likely cells overlap here"),
}

FAMILY = Family(
    settings=VQAmodalSettings,
    title="VQ amodal (complete cells)",
    finds="cells",
    about="the cells of a cleavage-stage embryo, each with its whole outline",
    recipes={"bundled": "vqamodal-finetune", "imagenet": "vqamodal-from-imagenet"},
    learns_from="cells",
    has_shape_code=True,
    ships=True,
    maps=MAPS,
    usual_maps=("occlusion",),
)
