"""Rules, read and checked against the columns that they speak of.

In: the `quality` entries of a contract file. Out: Rule. What Great Expectations would only find when it runs, or never,
is a ContractError here: unknown columns, arguments that do not fit the column's type, bounds that exclude each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date

from fleet_assets.contracts.document import Node
from fleet_assets.contracts.model import (
    BETWEEN,
    EXPECTATIONS,
    IN_SET,
    NOT_NULL,
    PAIR,
    REGEX,
    ROW_COUNT,
    SCOPES,
    UNIQUE,
    Rule,
)

_NUMBERS = ("long", "double")
# Types of YAML values that a column's values can equal (Arrow would tell too, but imports pandas for it).
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "long": (int,),
    "double": (int, float),
    "boolean": (bool,),
    "date": (date,),
}


def present(columns: Iterable[str]) -> tuple[Rule, ...]:
    """The rules that follow from columns being required; payload is judged by none."""
    return tuple(
        Rule(f"{name} is present", "row", True, NOT_NULL, {"column": name}, "The contract requires it.")
        for name in columns
    )


def read_rules(holder: Node, columns: Mapping[str, str]) -> tuple[Rule, ...]:
    """The rules of a schema object. columns: type by name. Raises ContractError."""
    entries = holder.elements("quality")
    unique_names(entries, "rule")
    return tuple(_rule(entry, columns) for entry in entries)


def _rule(entry: Node, columns: Mapping[str, str]) -> Rule:
    name = entry["name"].text
    entry["type"].one_of(("custom",))
    entry["engine"].one_of(("greatExpectations",))
    implementation = entry["implementation"]
    expectation = implementation["type"]
    if expectation.value not in EXPECTATIONS:
        known = ", ".join(EXPECTATIONS)
        raise expectation.error(f"rule {name!r}: unknown expectation {expectation.value!r}", f"Use one of {known}.")
    spec = EXPECTATIONS[expectation.text]
    kwargs = implementation["kwargs"]
    custom = custom_properties(entry)
    scope = property_of(entry, custom, "scope")
    scope.one_of(SCOPES)
    if scope.value not in spec.scopes:
        raise scope.error(
            f"rule {name!r}: {expectation.text} says nothing about one {scope.text}", f"Scope {spec.scopes[-1]}."
        )
    given = set(kwargs.of(dict))
    if unknown := sorted(given - spec.required - spec.optional):
        allowed = ", ".join(sorted(spec.required | spec.optional))
        raise kwargs.error(f"rule {name!r}: no argument {', '.join(unknown)}", f"{expectation.text} takes {allowed}.")
    if missing := sorted(spec.required - given):
        raise kwargs.error(f"rule {name!r}: {', '.join(missing)} missing", "Add it.")
    rule = Rule(
        name,
        scope.value,
        property_of(entry, custom, "blocking").of(bool),
        expectation.text,
        dict(kwargs.value),
        entry["description"].text,
    )
    if "column_list" in given and len(kwargs["column_list"].of(list)) < 2:
        raise kwargs["column_list"].error(f"rule {name!r}: one column", f"Use {UNIQUE} for a single column.")
    if absent := [column for column in rule.columns if column not in columns]:
        raise kwargs.error(f"rule {name!r}: there is no column {', '.join(map(repr, absent))}", "Correct the name.")
    _check_arguments(rule, kwargs, [columns[column] for column in rule.columns])
    return rule


def _check_arguments(rule: Rule, kwargs: Node, types: list[str]) -> None:
    """Arguments fit the columns' types; what Great Expectations would only find when it runs, or never."""
    if "mostly" in rule.kwargs:
        share = kwargs["mostly"]
        if rule.scope == "row" or not 0 < share.number <= 1:
            raise share.error(
                f"rule {rule.name!r}: mostly {share.value}", "A share above 0 up to 1, with scope drive or table."
            )
    for flag in ("strict_min", "strict_max", "or_equal"):
        if flag in rule.kwargs:
            kwargs[flag].of(bool)
    if rule.expectation in (BETWEEN, ROW_COUNT):
        _check_bounds(rule, kwargs, types)
    elif rule.expectation == IN_SET:
        if types[0] not in _PYTHON:
            raise kwargs["column"].error(f"rule {rule.name!r}: a set of {types[0]}", "Only plain values form a set.")
        _check_set(rule, kwargs["value_set"], types[0])
    elif rule.expectation == REGEX:
        if types[0] != "string":
            raise kwargs["column"].error(f"rule {rule.name!r}: a regex on {types[0]}", "Only strings have one.")
        if compiled(kwargs["regex"], kwargs["regex"].text).groups:
            raise kwargs["regex"].error(f"rule {rule.name!r}: a capturing group", "Write (?:...) instead of (...).")
    elif rule.expectation == PAIR and (types[0] != types[1] or types[0] not in (*_NUMBERS, "date")):
        raise kwargs.error(f"rule {rule.name!r}: compares {types[0]} with {types[1]}", "Compare numbers of one type.")


def _check_bounds(rule: Rule, kwargs: Node, types: list[str]) -> None:
    if types and types[0] not in _NUMBERS:
        raise kwargs["column"].error(f"rule {rule.name!r}: bounds on {types[0]}", "Only numbers have bounds.")
    bounds = [kwargs[key] for key in ("min_value", "max_value") if kwargs.get(key)]
    if not bounds:
        raise kwargs.error(f"rule {rule.name!r}: no bound", "Give min_value, max_value or both.")
    for bound in bounds:
        if types != ["double"] and not isinstance(bound.number, int):
            raise bound.error(f"rule {rule.name!r}: bound {bound.value}", "Give a whole number.")
        if isinstance(bound.value, int) and not -(2**63) <= bound.value < 2**63:
            raise bound.error(f"rule {rule.name!r}: bound {bound.value}", "Give a number of 64 bits.")
    if len(bounds) == 2 and bounds[0].number > bounds[1].number:
        raise kwargs.error(f"rule {rule.name!r}: min_value is above max_value", "Swap them.")


def _check_set(rule: Rule, values: Node, kind: str) -> None:
    if not values.of(list):
        raise values.error(f"rule {rule.name!r}: an empty set", "Name the values that are allowed.")
    for value in values:
        if type(value.value) not in _PYTHON[kind]:
            raise value.error(f"rule {rule.name!r}: {value.value!r} is no {kind}", "Correct the value.")


def compiled(node: Node, pattern: str) -> re.Pattern[str]:
    """A regular expression from the file."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise node.error(f"{pattern!r} is no regular expression: {error}", "Correct it.") from error


def unique_names(entries: list[Node], what: str) -> None:
    """Raises ContractError when two entries have one name."""
    seen: set[str] = set()
    for entry in entries:
        if entry["name"].text in seen:
            raise entry["name"].error(f"{what} {entry['name'].text!r} is there twice", "Rename or remove one.")
        seen.add(entry["name"].text)


def custom_properties(holder: Node) -> dict[str, Node]:
    """customProperties by name."""
    found: dict[str, Node] = {}
    for entry in holder.elements("customProperties"):
        key = entry["property"].text
        if key in found:
            raise entry.error(f"customProperty {key!r} is there twice", "Remove one.")
        found[key] = entry["value"]
    return found


def property_of(holder: Node, custom: dict[str, Node], key: str) -> Node:
    """A customProperty that must be there."""
    if key not in custom:
        raise holder.error(f"customProperty {key!r} is missing", f"Add {key!r} to customProperties.")
    return custom[key]
