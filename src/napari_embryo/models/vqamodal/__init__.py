"""VQ amodal: the complete silhouette of every blastomere, including parts covered by other cells.

Mask R-CNN (He et al. 2017) with an occlusion branch, a head that predicts the codes of a shape, which a frozen VQ-VAE
decodes, and a refinement, after Jang et al., "Learning Vector Quantized Shape Code for Amodal Blastomere Instance
Segmentation". There is no public code; docs/decisions.md gives what the paper leaves open.
"""

from napari_embryo.models.network import NetworkFunctions
from napari_embryo.models.vqamodal.losses import counts, loss
from napari_embryo.models.vqamodal.network import VQAmodal, build
from napari_embryo.models.vqamodal.postprocess import score, to_cells
from napari_embryo.models.vqamodal.views import merge_views

__all__ = ["NETWORK", "VQAmodal", "build", "counts", "loss", "score", "to_cells"]

NETWORK = NetworkFunctions(
    build=build,
    loss=loss,
    counts=counts,
    score=score,
    decode=to_cells,
    merge_views=merge_views,
    guided=True,
)
