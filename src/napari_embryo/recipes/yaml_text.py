"""Parse YAML to plain values, refusing texts that expand or nest without bounds."""

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

_LONGEST = 100_000
"""Largest length in characters; the longest bundled recipe has a few thousand."""
_MOST_VALUES = 10_000
_DEEPEST = 20


def load(text: str) -> Any:
    """Parse a YAML text.

    Raises
    ------
    ValueError
        If it is not YAML, is too long or too deeply nested, or repeats its parts through aliases without bounds.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text)} characters; a recipe has a few thousand")
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node)
        return loader.construct_document(node)
    # PyYAML's constructors do not catch the errors of int(), datetime() and dict.
    except (yaml.YAMLError, KeyError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _check(root: Node) -> None:
    values, depth = _measure(root, {}, set())
    if values > _MOST_VALUES:
        raise ValueError(f"its aliases (*name) expand to {values:.3g} values; write the settings out without aliases")
    if depth > _DEEPEST:
        raise ValueError(f"it is nested {depth} levels deep; a recipe has three")


def _measure(node: Node, known: dict[int, tuple[int, int]], around: set[int]) -> tuple[int, int]:
    """Number of values of a node with its aliases expanded, and their depth."""
    if id(node) in around:
        raise ValueError("an alias (*name) refers to something that contains it")
    if id(node) not in known:
        inner = [_measure(each, known, around | {id(node)}) for each in _inside(node)]
        known[id(node)] = 1 + sum(values for values, _ in inner), 1 + max((depth for _, depth in inner), default=0)
    return known[id(node)]


def _inside(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [each for pair in node.value for each in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []
