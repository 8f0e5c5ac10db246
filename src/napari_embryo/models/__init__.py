"""The networks: ``NETWORKS`` maps a family's name to how its networks are built, trained and decoded."""

from napari_embryo.families import NetworkSettings
from napari_embryo.models import baselines, regdeeplab, resanet, shapecode, vqamodal
from napari_embryo.models.network import Network, NetworkFunctions, View, Watch

__all__ = ["NETWORKS", "Network", "NetworkFunctions", "View", "Watch", "build"]

NETWORKS: dict[str, NetworkFunctions] = {
    "resanet": resanet.NETWORK,
    "regdeeplab": regdeeplab.NETWORK,
    "vqamodal": vqamodal.NETWORK,
    "shapecode": shapecode.NETWORK,
    "unet": baselines.UNET,
    "inception": baselines.INCEPTION,
}


def build(settings: NetworkSettings) -> Network:
    """Build the network described by ``settings``, with random weights."""
    if settings.family not in NETWORKS:
        raise ValueError(f"there is no family {settings.family!r}; choose one of {', '.join(sorted(NETWORKS))}")
    return NETWORKS[settings.family].build(settings)
