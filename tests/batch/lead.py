"""The process that leads a run, to be killed by tests: ``python lead.py FOLDER OUT``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import fakes

from napari_embryo import batch


def main() -> None:
    """As the command line does it, with the quick stand-in for a network."""
    from napari_embryo.cli.run_batch import JsonLines, interruptible

    plan = batch.plan([sys.argv[1]], sys.argv[2])
    teller = JsonLines()
    steps = batch.run(plan, batch.ProcessPool([{}, {}]), "changed", fakes.do, fakes.ready)
    try:
        with interruptible():
            for step in steps:
                teller.step(step)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        steps.close()


if __name__ == "__main__":
    main()
