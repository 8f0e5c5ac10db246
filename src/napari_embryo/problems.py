"""Describe what is wrong with a setting, in words for users instead of those of the validation library."""

from collections.abc import Callable, Mapping
from typing import Any

_LONGEST = 60
_NAME = "a name consists of letters, digits, '.', '_' and '-', with a letter or digit first"

_NEEDED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than": lambda told: f"a number above {told['gt']:g}",
    "greater_than_equal": lambda told: f"a number of at least {told['ge']:g}",
    "less_than": lambda told: f"a number below {told['lt']:g}",
    "less_than_equal": lambda told: f"a number of at most {told['le']:g}",
    "finite_number": lambda told: "a finite number",
    "literal_error": lambda told: f"one of {told['expected'].replace(' or ', ', ')}",
    "too_short": lambda told: f"a list with at least {told['min_length']}",
    "too_long": lambda told: f"a list with at most {told['max_length']}",
    "union_tag_invalid": lambda told: f"one of {told['expected_tags']}",
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a mapping of names to values",
    "mapping": "a mapping of names to values",
    "model": "a group of settings",
}
"""What is needed, by the first word of the type of the problem, such as ``int_parsing``."""


def said(problem: Mapping[str, Any]) -> str:
    """Describe one problem of a validation error, without the name of the setting.

    Parameters
    ----------
    problem
        An entry of ``ValidationError.errors()``.

    Returns
    -------
    str
        Such as ``0 was given; a number of at least 1 is needed``.
    """
    kind, told = str(problem["type"]), problem.get("ctx", {})
    match kind:
        case "value_error":
            return str(told["error"])
        case "extra_forbidden" | "invalid_key":
            return "there is no such setting"
        case "missing" | "union_tag_not_found":
            return "nothing was given, but a value is needed"
    if kind == "string_pattern_mismatch":  # names are the only texts whose form is prescribed
        return f"{short(problem['input'])} was given; {_NAME}"
    return f"{short(problem['input'])} was given; {needed(kind, told)} is needed"


def needed(kind: str, told: Mapping[str, Any]) -> str:
    """What a setting must be, by the type of the problem and its context."""
    if kind in _NEEDED:
        return _NEEDED[kind](told)
    return _KINDS.get(kind.split("_", maxsplit=1)[0], "a value of another kind")


def short(value: Any) -> str:
    """A value as written in a recipe, truncated if long."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return "something that cannot be shown"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
