"""VQ amodal: every blastomere's complete silhouette, also where other cells cover it.

Mask R-CNN (He et al. 2017) with an occlusion branch, a head that tells the codes of a shape, which a frozen VQ-VAE
decodes, and a refinement, after Jang et al., "Learning Vector Quantized Shape Code for Amodal Blastomere Instance
Segmentation". The paper gives no code; sizes, samplings and means instead of sums are our decisions.
"""

from napari_embryo.models.vqamodal.losses import counts, loss
from napari_embryo.models.vqamodal.network import MAPS, VQAmodal, build
from napari_embryo.models.vqamodal.postprocess import score, to_segmentation

__all__ = ["MAPS", "VQAmodal", "build", "counts", "loss", "score", "to_segmentation"]
