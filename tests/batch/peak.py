"""Most memory that a process needs for a folder: ``python peak.py FOLDER OUT WEIGHTS`` prints MB."""

import resource
import sys

from napari_embryo import batch
from napari_embryo.settings import BatchSettings, SegmentSettings


def main() -> None:
    """With one thread, so that the network's buffers are the same every time."""
    import torch

    torch.set_num_threads(1)
    folder, out, weights = sys.argv[1:]
    segment = SegmentSettings(weights=weights, device="cpu", maps=())
    for _ in batch.run(batch.plan([folder], out, BatchSettings(segment=segment)), batch.Inline()):
        pass
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}")


if __name__ == "__main__":
    main()
