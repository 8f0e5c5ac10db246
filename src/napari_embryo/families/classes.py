"""Classes shared by several families."""

BLASTOCYST_CLASSES = ("ICM", "TE", "ZP")
"""Inner cell mass, trophectoderm, zona pellucida; their position + 1 is their label."""

FRAGMENT_CLASSES = ("fragment", "embryo")
"""Anucleate fragments, and the embryo they are part of: the area of cells and fragments, the basis of the ratio."""


def fragment_classes_only(classes: tuple[str, ...]) -> tuple[str, ...]:
    """A validator for families whose classes are fixed."""
    if classes != FRAGMENT_CLASSES:
        raise ValueError(
            f"the classes {', '.join(classes)} were given; this family has {' and '.join(FRAGMENT_CLASSES)}"
        )
    return classes
