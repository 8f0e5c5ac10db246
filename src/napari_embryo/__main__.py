"""``python -m napari_embryo`` is the command ``napari-embryo``."""

from napari_embryo.cli import main

if __name__ == "__main__":
    main()
