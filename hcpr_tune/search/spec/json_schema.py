"""A JSON schema of space files, generated from the settings, for editors that complete and check TOML."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from hcpr_tune.common.settings import Bounds, Settings, dotted_names
from hcpr_tune.search.spec.dimension_tables import FIXED
from hcpr_tune.search.spec.settings import StudySettings
from hcpr_tune.search.spec.study import DERIVED
from hcpr_tune.training.recipe import Recipe, Task

TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}
BOUNDS = {"above": "exclusiveMinimum", "at_least": "minimum", "below": "exclusiveMaximum", "at_most": "maximum"}


def space_schema() -> dict[str, Any]:
    """The schema of a whole file."""
    study = table(StudySettings)
    study["properties"]["objective"] = {"anyOf": [study["properties"]["objective"], {"type": "string"}]}
    recipe = table(Recipe)
    for name in DERIVED:
        del recipe["properties"][name]
    value = {"type": ["number", "string", "boolean"]}
    study["properties"] |= {
        "task": table(Task),
        "recipe": recipe,
        "search": {
            "type": "object",
            "description": "What is searched, by dotted recipe field, or field@label if several dimensions share one.",
            "properties": {
                name: {"description": item.metadata["doc"], "allOf": [{"$ref": "#/definitions/dimension"}]}
                for name, (hint, item) in dotted_names(Recipe).items()
                if not name.startswith(FIXED) and typing.get_origin(hint) is not tuple
            },
            "patternProperties": {key: {"$ref": "#/definitions/dimension"} for key in ("@", r"^coefficients\.")},
        },
        "first_points": {
            "type": "array",
            "description": "Points to try first; dimensions that a point leaves out are as in the recipe.",
            "items": {"type": "object", "additionalProperties": value},
        },
    }
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "hcpr_tune search space"}
    return {**head, "definitions": {"dimension": dimension()}, **study}


def dimension() -> dict[str, Any]:
    """The table of one searched field."""
    value = {"type": ["number", "string", "boolean"]}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "low": {"type": "number", "description": "Lower end."},
            "high": {"type": "number", "description": "Upper end."},
            "log": {"type": "boolean", "description": "Sample uniformly in the logarithm."},
            "extra_values": {
                "type": "array",
                "items": {"type": "number"},
                "description": "Values in addition to the range, such as 0 for off.",
            },
            "choices": {
                "type": "array",
                "items": value,
                "minItems": 2,
                "description": "The values, instead of low and high.",
            },
            "when": {
                "type": "object",
                "description": "The dimension exists only if these dimensions have one of these values.",
            },
            "prior": {
                "type": "object",
                "description": "Where good values are expected; strength, 0 to 1, is the share of the first suggestions"
                " that follow it.",
                "required": ["centre", "strength"],
                "additionalProperties": False,
                "properties": {"centre": value, "strength": {"type": "number", "minimum": 0, "maximum": 1}},
            },
        },
    }


def table(cls: type[Settings]) -> dict[str, Any]:
    """The schema of a settings class."""
    hints = typing.get_type_hints(cls)
    items = dataclasses.fields(cls)  # type: ignore[arg-type]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {item.name: entry(hints[item.name], item) for item in items},
    }


def entry(hint: Any, item: dataclasses.Field[Any]) -> dict[str, Any]:
    """The schema of one setting."""
    doc = {"description": item.metadata["doc"]}
    if isinstance(hint, type) and hasattr(hint, "from_table"):
        return doc | {"type": "object", "additionalProperties": {"type": ["number", "string", "boolean"]}}
    if isinstance(hint, type) and issubclass(hint, Settings):
        inner = table(hint)
        return doc | ({"anyOf": [inner, {"type": "number"}]} if hasattr(hint, "from_plain") else inner)
    bounds = bounds_words(item.metadata["bounds"])
    if typing.get_origin(hint) is tuple:
        default: Any = item.default
        return doc | {
            "type": "array",
            "items": {"type": TYPES[typing.get_args(hint)[0]], **bounds},
            "default": list(default),
        }
    if typing.get_origin(hint) is typing.Union:
        kind, word = typing.get_args(hint)
        kinds = [{"type": TYPES[kind], **bounds}, {"enum": list(typing.get_args(word))}]
        return doc | {"anyOf": kinds, "default": item.default}
    return doc | {"type": TYPES[hint], **bounds, "default": item.default}


def bounds_words(bounds: Bounds) -> dict[str, Any]:
    """A setting's bounds as schema keywords."""
    if bounds.forms:
        return {
            "anyOf": [{"enum": list(bounds.choices or ())}, *({"pattern": f"^({form})$"} for _, form in bounds.forms)]
        }
    if bounds.choices is not None:
        return {"enum": list(bounds.choices)}
    return {word: getattr(bounds, name) for name, word in BOUNDS.items() if getattr(bounds, name) is not None}
