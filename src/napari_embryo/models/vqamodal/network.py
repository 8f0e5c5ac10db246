"""The network: Mask R-CNN for complete silhouettes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from napari_embryo.families.vqamodal import MAPS, VQAmodalSettings
from napari_embryo.models.boxes import crop_masks
from napari_embryo.models.encoder import Encoder
from napari_embryo.models.network import Network
from napari_embryo.models.shapecode import FrozenShapeCode
from napari_embryo.models.vqamodal import roi_head
from napari_embryo.models.vqamodal.fpn import Occlusion, Pyramid, occlusion_loss, pool
from napari_embryo.models.vqamodal.mask_head import CodedHead, Drawn, FCNHead, code_loss, encode, mask_loss
from napari_embryo.models.vqamodal.postprocess import rescored
from napari_embryo.models.vqamodal.roi_head import ASN, BoxHead, Chosen, choose
from napari_embryo.models.vqamodal.rpn import Proposals
from napari_embryo.models.vqamodal.targets import Cells, cells_of, per_picture


class VQAmodal(Network):
    """Find the cells in normalized gray images (B, 1, h, w) of any size from 32 pixels, each with its whole outline.

    ``forward(images)``, in eval mode, returns D = ``settings.detections`` cells per image, highest score first, padded
    with a score of 0: ``boxes`` (B, D, 4), x1, y1, x2, y2 in pixels of the input; ``scores`` (B, D); ``cell_logits``
    (B, D, S, S), the mask within the box; with the head of codes ``initial_logits`` (B, D, S, S) before the
    refinement, ``codes`` (B, D, M, M), integers, and ``posterior`` (B, D, M, M), the probability of the code; with the
    occlusion branch ``occlusion`` (B, 1, h / 4, w / 4), logits, and ``occlusion_probability``, their sigmoid.

    ``forward(images, targets)`` returns the losses (B,) of every image, NaN where undefined: ``loss_objectness`` and
    ``loss_anchor`` of the proposals, ``loss_class`` and ``loss_box`` of the boxes, ``loss_code``, ``loss_mask``,
    ``loss_occlusion`` (branch), ``loss_occluded`` (ASN); in eval mode also the cells.

    All cells are of one kind, whatever ``settings.classes``. The shape code, ``shape``, is frozen.
    """

    settings: VQAmodalSettings

    def __init__(self, settings: VQAmodalSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(settings.encoder)
        self.pyramid = Pyramid()
        self.occlusion = Occlusion() if settings.occlusion == "branch" else None
        self.proposals = Proposals(settings.box_nms, settings.smallest_anchor)
        self.box = BoxHead(deep=settings.occlusion == "asn")
        self.asn = ASN() if settings.occlusion == "asn" else None
        self.head: CodedHead | FCNHead = CodedHead(settings) if settings.head == "vq" else FCNHead()
        self.shape = FrozenShapeCode(settings.shape) if settings.head == "vq" else None

    def map_names(self) -> tuple[str, ...]:
        """Names of the attention maps of this network."""
        return tuple(MAPS) if self.occlusion is not None else ()

    def shape_code(self) -> FrozenShapeCode | None:
        """The shape code of the mask head, if it has one."""
        return self.shape

    def forward(self, images: Tensor, targets: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """See the class."""
        if self.training and targets is None:
            raise ValueError("no targets were given in training mode; give those of the batch, or call eval() first")
        hw = int(images.shape[-2]), int(images.shape[-1])
        levels = self.pyramid(self.encoder(images)[1:])
        overlap: list[Tensor] = []
        if self.occlusion is not None:
            levels, overlap = self.occlusion(levels)
        proposed = self.proposals(levels, hw)
        # RoIAlign needs this layout and computes in float32; convert once for all users.
        looked_at = [level.float().contiguous() for level in levels[:4]]
        outputs: dict[str, Tensor] = {}
        if targets is not None:
            cells, chance = cells_of(targets), self._chance(len(images))
            chosen = choose(proposed.boxes, cells, chance)
            outputs |= self.proposals.losses(proposed, cells, chance)
            outputs |= self._cell_losses(looked_at, chosen, cells)
            if overlap:
                outputs["loss_occlusion"] = self._occlusion_loss(overlap, cells, targets["valid"])
        if not self.training:
            outputs |= self._found(looked_at, proposed.boxes, hw)
            outputs |= _shown(overlap)
        return outputs

    def _chance(self, count: int) -> list[torch.Generator | None]:
        """Random in training, the same for every image in validation."""
        return [None if self.training else torch.Generator().manual_seed(0) for _ in range(count)]

    def _occlusion_loss(self, overlap: Sequence[Tensor], cells: Sequence[Cells], valid: Tensor) -> Tensor:
        label = torch.stack([own.overlap(self.settings.translucent) for own in cells])[:, None].float()
        return occlusion_loss(overlap, label, valid.float(), self.settings.reduction)

    def _cell_losses(self, levels: Sequence[Tensor], chosen: Chosen, cells: Sequence[Cells]) -> dict[str, Tensor]:
        features = pool(levels, chosen.boxes, roi_head.SIDE)
        losses = self.box.losses(self.box(features), chosen, cells)
        positive = chosen.positive()
        at, picture = features[chosen.on_cells], positive.picture
        if self.asn is not None:
            occluded = torch.cat([own.occluded(self.settings.translucent)[i] for own, i in _pairs(cells, positive)])
            losses["loss_occluded"] = self.asn.loss(at, occluded, picture, len(cells))
        drawn = self._draw(levels, positive.boxes, at, is_shown=False)
        return losses | self._mask_losses(drawn, positive, cells)

    def _mask_losses(self, drawn: Drawn, positive: Chosen, cells: Sequence[Cells]) -> dict[str, Tensor]:
        reduction, count, picture = self.settings.reduction, len(cells), positive.picture
        each: dict[str, Tensor] = {}
        if drawn.code is not None and self.shape is not None:
            crops = _crops(cells, positive, self.settings.shape.side)[:, None]
            each["loss_code"] = code_loss(drawn.code, encode(crops, self.shape), self.settings.code_loss, reduction)
        if drawn.cell is not None:
            each["loss_mask"] = mask_loss(drawn.cell, _crops(cells, positive, self.head.mask_side), reduction)
        return {name: per_picture(of, picture, count, mean=reduction == "mean") for name, of in each.items()}

    def _draw(
        self, levels: Sequence[Tensor], boxes: Sequence[Tensor], seen: Tensor | None = None, *, is_shown: bool = True
    ) -> Drawn:
        """Masks of boxes; ``seen`` are the features (N, 256, 7, 7) of the box head, if already computed."""
        own = pool(levels, boxes, self.head.side)
        if self.asn is not None:
            own = self.asn(pool(levels, boxes, roi_head.SIDE) if seen is None else seen, self.box, own)
        drawn: Drawn = self.head(own, self.shape, is_shown)
        return drawn

    @torch.no_grad()
    def _found(self, levels: Sequence[Tensor], proposed: Sequence[Tensor], hw: tuple[int, int]) -> dict[str, Tensor]:
        told = self.box(pool(levels, proposed, roi_head.SIDE))
        boxes, scores = self.box.found(told, proposed, hw, self.settings)
        drawn = _named(self._draw(levels, boxes))
        sizes = [len(own) for own in boxes]
        named = {name: of.split(sizes) for name, of in drawn.items()}
        each = zip(boxes, named["cell_logits"], scores, strict=True)
        scores = [rescored(*own, hw, self.settings.mask_nms) for own in each]
        named |= {"boxes": boxes, "scores": scores}
        most = self.settings.detections
        kept = [torch.argsort(own, descending=True, stable=True)[:most] for own in scores]
        return {name: _stacked(pictures, kept, most) for name, pictures in named.items()}


def _pairs(cells: Sequence[Cells], chosen: Chosen) -> list[tuple[Cells, Tensor]]:
    return list(zip(cells, chosen.cell, strict=True))


@torch.no_grad()
def _crops(cells: Sequence[Cells], chosen: Chosen, side: int) -> Tensor:
    """(N, side, side) in {0, 1}: the part of each box covered by its cell."""
    each = [
        crop_masks(own.masks, box, side, at) for (own, at), box in zip(_pairs(cells, chosen), chosen.boxes, strict=True)
    ]
    return torch.cat(each)


def _named(drawn: Drawn) -> dict[str, Tensor]:
    """The outputs for each cell."""
    outputs: dict[str, Tensor] = {}
    if drawn.cell is not None:
        outputs["cell_logits"] = drawn.cell
    if drawn.initial is not None:
        outputs["initial_logits"] = drawn.initial
    if drawn.code is not None:
        posterior, code = torch.softmax(drawn.code, 1).max(1)
        outputs |= {"codes": code, "posterior": posterior}
    return outputs


def _stacked(pictures: Sequence[Tensor], kept: Sequence[Tensor], count: int) -> Tensor:
    """Select values (n, ...) of every image -> (B, count, ...), padded with zeros."""
    each = [values[at] for values, at in zip(pictures, kept, strict=True)]
    return torch.stack([torch.cat((own, own.new_zeros(count - len(own), *own.shape[1:]))) for own in each])


def _shown(overlap: Sequence[Tensor]) -> dict[str, Tensor]:
    """The finest occlusion map."""
    if not overlap:
        return {}
    logits = overlap[0].float()
    return {"occlusion": logits, "occlusion_probability": torch.sigmoid(logits)}


def build(settings: VQAmodalSettings) -> VQAmodal:
    """A network with random weights, including those of its shape code, which have to be loaded."""
    return VQAmodal(settings)
