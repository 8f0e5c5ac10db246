"""Dock widgets; the only place that uses napari, magicgui and Qt."""
