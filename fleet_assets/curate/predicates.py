"""Predicates: one language for slices, mining, triggers and alerts.

In: a SQL boolean expression over columns of contracts, such as `ego_motion.speed_mps > unit(50, 'km/h') AND scenario.night`.
Out: a checked tree of terms, from which predicate_forms.py makes Spark SQL and a program for memory and vehicle. A mistake is a
PredicateError with its position. Logic has three values, and only TRUE selects; what divides by zero is not known.

Allowed: AND, OR, NOT, = <> < <= > >=, BETWEEN, IN, IS [NOT] NULL, TRUE or FALSE, + - * /, abs, coalesce, unit(number, 'unit'),
numbers, texts, columns, and scenario.NAME for another predicate.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.units import PLAIN, Unit, unit_of
from fleet_assets.errors import FleetError

if TYPE_CHECKING:
    from sqlglot import exp

LENGTH, DEPTH, SIZE = 4000, 40, 2000
SCENARIO = "scenario"
Kind = Literal["float", "int", "text", "bool"]
_KINDS: dict[str, Kind] = {"double": "float", "long": "int", "string": "text", "boolean": "bool"}
_WORDS = {"float": "a number", "int": "a whole number", "text": "text", "bool": "true or false"}


class PredicateError(FleetError):
    """A predicate that cannot be taken. position: offset of the mistake in its text."""

    def __init__(self, what: str, text: str, position: int, remedy: str | None = None) -> None:
        line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
        near = text[position : position + 30].split("\n")[0]
        super().__init__(what, where=f"line {line}, column {column}: {near or 'its end'}", remedy=remedy)
        self.position = position


@dataclass(frozen=True)
class Term:
    """A checked part of a predicate.

    operation: column, constant, float (of a whole number), a sign, or a word. unit None: a plain number, which takes the unit of
    what it meets. quantity: a constant with a unit, which is brought to that of what it meets. at: offset in the text.
    """

    operation: str
    kind: Kind
    arguments: tuple[Term, ...] = ()
    value: Any = None
    unit: Unit | None = None
    quantity: bool = False
    at: int = 0

    def walk(self) -> Iterator[Term]:
        waiting = [self]
        while waiting:
            term = waiting.pop()
            yield term
            waiting += term.arguments


@dataclass(frozen=True)
class Predicate:
    """text: as it was written. columns: qualified names of the columns it reads, sorted. scenarios: those it is made of."""

    text: str
    term: Term
    columns: tuple[str, ...]
    scenarios: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """What predicates may speak of. tables: name in predicates -> contract, such as ego_motion -> features.ego_motion."""

    tables: Mapping[str, str]

    def find(self, table: str, column: str) -> tuple[str, Kind, Unit] | str:
        """Qualified name, kind and unit; or, in words, why there is none. table: empty when the predicate does not say."""
        names = [name for name in self.tables if not table or table in (name, self.tables[name])]
        if not names:
            return f"there is no table {table!r}; there are {', '.join(self.tables)}"
        found = [name for name in names if column in self._columns(name)]
        if not found:
            known = {name: table for table in names for name in self._columns(table)}
            near = difflib.get_close_matches(column, known, 1)
            told = f"; did you mean {known[near[0]]}.{near[0]}?" if near else ""
            return f"there is no column {column!r}{f' in {table}' if table else ''}{told}"
        if len(found) > 1:
            return f"{column!r} is in several tables: say {' or '.join(f'{name}.{column}' for name in found)}"
        type_, unit = self._columns(found[0])[column]
        if type_ not in _KINDS:
            return f"column {column!r} is of type {type_}, which no predicate compares"
        return f"{found[0]}.{column}", _KINDS[type_], unit

    def _columns(self, name: str) -> dict[str, tuple[str, Unit]]:
        contract = load_tables()[self.tables[name]]
        return {
            column.name: (column.type, unit_of(column.unit) if column.unit else PLAIN) for column in contract.columns
        }


def parse(text: str, catalogue: Catalogue, scenarios: Mapping[str, str] | None = None) -> Predicate:
    """scenarios: texts of the predicates that scenario.NAME stands for. Raises PredicateError."""
    return _Reader(text, catalogue, scenarios or {}, ()).predicate()


@dataclass
class _Reader:
    """One text. within: scenarios that are being read, so that none is made of itself. parsed, parts: what was parsed, and how
    many parts were read, with all scenarios: these may double with every level."""

    text: str
    catalogue: Catalogue
    scenarios: Mapping[str, str]
    within: tuple[str, ...]
    parsed: dict[str, Any] = field(default_factory=dict)
    parts: Counter[str] = field(default_factory=Counter)
    used: set[str] = field(default_factory=set)

    def predicate(self) -> Predicate:
        term = self.boolean(self._parsed(), 0)
        columns = {str(part.value) for part in term.walk() if part.operation == "column"}
        return Predicate(self.text, term, tuple(sorted(columns)), tuple(sorted(self.used)))

    def refuse(self, what: str, at: int, remedy: str | None = None) -> NoReturn:
        if self.within:
            what = f"Scenario {self.within[-1]}: {what}"
        raise PredicateError(what, self.text, at, remedy)

    def _parsed(self) -> Any:
        import sqlglot
        from sqlglot.errors import ParseError, SqlglotError

        if len(self.text) > LENGTH:
            self.refuse(f"The predicate has {len(self.text)} characters; at most {LENGTH} are read", 0)
        for at, letter in enumerate(self.text):
            if not (letter.isprintable() or letter in "\n\t "):
                self.refuse("A character that cannot be printed", at, "Type the predicate anew.")
        try:
            found = [one for one in sqlglot.parse(self.text, dialect="postgres") if one is not None]
        except ParseError as error:
            told = error.errors[0] if error.errors else {}
            at = _offset(self.text, told.get("line") or 1, (told.get("col") or 1) - len(told.get("highlight") or " "))
            self.refuse(f"This is no predicate: {told.get('description') or error}", at, _GRAMMAR)
        except (SqlglotError, RecursionError) as error:
            self.refuse(f"This is no predicate: {str(error).splitlines()[0]}", 0, _GRAMMAR)
        if len(found) != 1:
            self.refuse(f"{len(found)} expressions where one predicate should be", 0, _GRAMMAR)
        return found[0]

    # ---- what is true or false ----

    def boolean(self, node: exp.Expression, depth: int) -> Term:
        term = self.term(node, depth)
        if term.kind != "bool":
            self.refuse(f"{_WORDS[term.kind]}, where a condition should be", term.at, "Compare it with something.")
        return term

    def term(self, node: exp.Expression, depth: int) -> Term:
        from sqlglot import exp

        self.parts["read"] += 1
        if self.parts["read"] > SIZE:
            self.refuse(f"The predicate has more than {SIZE} parts", 0, "Say it with fewer scenarios.")
        if depth > DEPTH:
            self.refuse(f"The predicate is nested deeper than {DEPTH}", _at(node), "Say it in several scenarios.")
        if isinstance(node, (exp.And, exp.Or)):
            return self._chain(node, depth)
        read: Callable[[Any, int], Term] | None = {
            exp.Paren: lambda one, deep: self.term(one.this, deep),
            exp.Not: lambda one, deep: Term("not", "bool", (self.boolean(one.this, deep),), at=_at(one)),
            exp.EQ: self._compared, exp.NEQ: self._compared, exp.LT: self._compared,
            exp.LTE: self._compared, exp.GT: self._compared, exp.GTE: self._compared,
            exp.Between: self._between, exp.In: self._in, exp.Is: self._is,
            exp.Add: self._calculated, exp.Sub: self._calculated, exp.Mul: self._calculated, exp.Div: self._calculated,
            exp.Neg: self._signed, exp.Abs: self._signed, exp.Coalesce: self._coalesced,
            exp.Anonymous: self._unit, exp.Literal: self._literal, exp.Column: self._column,
            exp.Boolean: lambda one, deep: Term("constant", "bool", value=bool(one.this), at=_at(one)),
        }.get(type(node))  # fmt: skip
        if read is None:
            what = "NULL alone" if isinstance(node, exp.Null) else type(node).__name__.upper()
            self.refuse(f"{what} is not taken in a predicate", _at(node), _GRAMMAR)
        extra = {name for name, value in node.args.items() if value} - _PARTS
        if extra:  # such as BETWEEN SYMMETRIC, whose meaning would be lost
            self.refuse(f"{type(node).__name__.upper()} with {', '.join(sorted(extra))}", _at(node), _GRAMMAR)
        return read(node, depth + 1)

    def _chain(self, node: exp.Expression, depth: int) -> Term:
        """a AND b AND c hangs to the left as deep as it is long; it counts as one level."""
        kind, operands, rest = type(node), [], [node]
        while rest:
            part = rest.pop()
            if type(part) is kind:
                rest += [part.args["this"], part.args["expression"]]
            else:
                operands.append(part)
        return _joined(kind.__name__.lower(), [self.boolean(part, depth + 1) for part in reversed(operands)])

    def _compared(self, node: Any, depth: int) -> Term:
        from sqlglot import exp

        left, right = self.term(node.this, depth), self.term(node.expression, depth)
        if isinstance(node, (exp.GT, exp.GTE)):
            left, right = right, left
        sign = {exp.EQ: "=", exp.NEQ: "=", exp.LT: "<", exp.GT: "<"}.get(type(node), "<=")
        term = self._comparison(sign, left, right)
        return Term("not", "bool", (term,), at=term.at) if isinstance(node, exp.NEQ) else term

    def _comparison(self, sign: str, left: Term, right: Term) -> Term:
        at = min(left.at, right.at)
        kinds = {left.kind, right.kind}
        if "text" in kinds or "bool" in kinds:
            if len(kinds) > 1:
                self.refuse(f"{_WORDS[left.kind]} compared with {_WORDS[right.kind]}", at)
            if sign != "=":
                self.refuse(f"{_WORDS[left.kind]} has no order", at, "Use =, <> or IN.")
            if left.kind == "text" and {left.operation, right.operation} != {"column", "constant"}:
                self.refuse("Texts are compared as column with text", at, "Such as weather = 'rain'.")
        return Term(sign, "bool", self._alike(left, right), at=at)

    def _between(self, node: Any, depth: int) -> Term:
        value, low, high = (self.term(node.args[name], depth) for name in ("this", "low", "high"))
        parts = (self._comparison("<=", low, value), self._comparison("<=", value, high))
        return Term("and", "bool", parts, at=value.at)

    def _in(self, node: Any, depth: int) -> Term:
        value, listed = self.term(node.this, depth), node.expressions
        if not listed:
            self.refuse("IN without a list", value.at, "Write IN ('a', 'b').")
        return _joined("or", [self._comparison("=", value, self.term(one, depth)) for one in listed])

    def _is(self, node: Any, depth: int) -> Term:
        from sqlglot import exp

        value = self.term(node.this, depth)
        if isinstance(node.expression, exp.Null):
            term = Term("is null", "bool", (value,), at=value.at)
        elif isinstance(node.expression, exp.Boolean) and value.kind == "bool":
            meant = value if node.expression.this else Term("not", "bool", (value,), at=value.at)
            term = Term("coalesce", "bool", (meant, Term("constant", "bool", value=False)), at=value.at)
        else:
            self.refuse("IS takes NULL, and conditions take TRUE and FALSE too", value.at)
        return Term("not", "bool", (term,), at=value.at) if node.args.get("negate") else term

    # ---- numbers ----

    def number(self, node: exp.Expression, depth: int) -> Term:
        term = self.term(node, depth)
        if term.kind not in ("float", "int"):
            self.refuse(f"{_WORDS[term.kind]}, where a number should be", term.at)
        return term

    def _calculated(self, node: Any, depth: int) -> Term:
        from sqlglot import exp

        left, right = self.number(node.this, depth), self.number(node.expression, depth)
        sign = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/"}[type(node)]
        at = min(left.at, right.at)
        if sign in "+-":
            left, right = self._alike(left, right)
            unit = left.unit if left.unit is not None else right.unit
        elif left.unit is None and right.unit is None:
            unit = None
        else:
            one, other = left.unit or PLAIN, right.unit or PLAIN
            unit = one * other if sign == "*" else one / other
        left, right = _floating(left), _floating(right)
        folded = _folded(sign, left, right)
        if folded is not None:
            return replace(left, value=folded, unit=unit, quantity=left.quantity or right.quantity, at=at)
        return Term(sign, "float", (left, right), unit=unit, at=at)

    def _signed(self, node: Any, depth: int) -> Term:
        from sqlglot import exp

        term = self.number(node.this, depth)
        if isinstance(node, exp.Neg) and term.operation == "constant":
            return replace(term, value=-term.value)
        word = "negate" if isinstance(node, exp.Neg) else "abs"
        return Term(word, "float", (_floating(term),), unit=term.unit, at=term.at)

    def _coalesced(self, node: Any, depth: int) -> Term:
        terms = [self.term(one, depth) for one in (node.this, *node.expressions)]
        if any(term.kind == "text" for term in terms):
            self.refuse("coalesce takes numbers and conditions", terms[0].at)
        if len({term.kind == "bool" for term in terms}) > 1:
            self.refuse("coalesce of numbers and conditions", terms[0].at)

        def both(left: Term, right: Term) -> Term:
            one, other = self._alike(left, right)
            unit = one.unit if one.unit is not None else other.unit
            return Term("coalesce", one.kind, (one, other), unit=unit, at=left.at)

        return reduce(both, terms)

    def _unit(self, node: Any, depth: int) -> Term:
        from sqlglot import exp

        if node.name.lower() != "unit":
            self.refuse(f"There is no function {node.name}", _at(node), "There are abs, coalesce and unit.")
        given = node.expressions
        if len(given) != 2 or not (isinstance(given[1], exp.Literal) and given[1].is_string):
            self.refuse("unit takes a number and a unit", _at(node), "Such as unit(50, 'km/h').")
        term = self.number(given[0], depth)
        if term.operation != "constant" or term.unit is not None:
            self.refuse("unit takes a plain number", term.at, "Such as unit(50, 'km/h').")
        try:
            unit = unit_of(given[1].name)
        except ValueError as error:
            self.refuse(str(error), _at(given[1]), "Such as 'm/s', 'km/h', 'deg' or 'ms'.")
        return replace(term, unit=unit, quantity=True, at=_at(node))

    def _literal(self, node: Any, depth: int) -> Term:
        if node.is_string:
            return Term("constant", "text", value=node.name, at=_at(node))
        try:
            value = float(node.name)
        except ValueError:
            self.refuse(f"{node.name} is no number", _at(node))
        if not math.isfinite(value):
            self.refuse(f"{node.name} is out of range", _at(node))
        if node.name.isdecimal() and int(node.name) < 2**63:
            return Term("constant", "int", value=int(node.name), at=_at(node))
        return Term("constant", "float", value=value, at=_at(node))

    def _column(self, node: Any, depth: int) -> Term:
        at = _at(node)
        if node.catalog:
            self.refuse(f"{node.sql()} has too many parts", at, "Say table.column.")
        if node.table == SCENARIO:
            return self._scenario(node.name, depth, at)
        found = self.catalogue.find(f"{node.db}.{node.table}" if node.db else node.table, node.name)
        if isinstance(found, str):
            self.refuse(found[0].upper() + found[1:], at, "`docs/reference` lists the columns of every table.")
        name, kind, unit = found
        return Term("column", kind, value=name, unit=unit if kind in ("float", "int") else None, at=at)

    def _scenario(self, name: str, depth: int, at: int) -> Term:
        if name in self.within:
            self.refuse(f"Scenario {name} is made of itself: {' -> '.join((*self.within, name))}", at)
        if name not in self.scenarios:
            near = difflib.get_close_matches(name, self.scenarios, 1)
            self.refuse(f"There is no scenario {name!r}", at, f"Did you mean {near[0]}?" if near else None)
        self.used.add(name)
        reader = replace(self, text=self.scenarios[name], within=(*self.within, name))
        if name not in self.parsed:
            self.parsed[name] = reader._parsed()
        term = reader.boolean(self.parsed[name], depth)
        return replace(term, at=at)

    def _alike(self, left: Term, right: Term) -> tuple[Term, Term]:
        """Both in one unit and of one kind."""
        left, right = self._in_unit_of(left, right), self._in_unit_of(right, left)
        if left.kind != right.kind:
            left, right = _whole(left, right), _whole(right, left)
        if left.kind != right.kind:
            left, right = _floating(left), _floating(right)
        return left, right

    def _in_unit_of(self, term: Term, other: Term) -> Term:
        unit, wanted = term.unit, other.unit
        if unit is None or wanted is None or unit == wanted:
            return term
        alike = unit.dimensions == wanted.dimensions
        if alike and math.isclose(unit.size, wanted.size, rel_tol=1e-12):
            return term
        if alike and term.quantity:
            value = term.value * (unit.size / wanted.size)
            if not math.isfinite(value):
                self.refuse(
                    f"{term.value} {unit.shown} is no number in {wanted.shown}", term.at, "Write a smaller constant."
                )
            return replace(term, kind="float", value=float(value), unit=wanted, quantity=other.quantity)
        if alike and other.quantity:
            return term
        remedy = f"Write the constant as unit(number, '{wanted.name}')." if alike else "Compare what has the same unit."
        self.refuse(f"{unit.shown} met {wanted.shown}", min(term.at, other.at), remedy)


# Arguments of the parser's nodes whose meaning is kept; `typed` and `safe` say how a dialect divides, and ours is said above.
_PARTS = {
    "this", "expression", "expressions", "low", "high", "table", "db", "catalog", "is_string", "negate", "typed", "safe",
}  # fmt: skip
_GRAMMAR = "Predicates are comparisons of columns, joined by AND, OR and NOT; docs/curate.md has the list."


def _joined(word: str, terms: Sequence[Term]) -> Term:
    """terms, of which there are some, joined by AND or OR as a tree that is no deeper than it must be."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return Term(word, "bool", (_joined(word, terms[:half]), _joined(word, terms[half:])), at=terms[0].at)


def _whole(term: Term, other: Term) -> Term:
    """A constant that is whole, where it meets a whole number."""
    fits = term.operation == "constant" and term.kind == "float" and other.kind == "int"
    if fits and term.value == int(term.value) and abs(term.value) < 2**53:
        return replace(term, kind="int", value=int(term.value))
    return term


def _floating(term: Term) -> Term:
    if term.kind != "int":
        return term
    if term.operation == "constant":
        return replace(term, kind="float", value=float(term.value))
    return Term("float", "float", (term,), unit=term.unit, at=term.at)


def _folded(sign: str, left: Term, right: Term) -> float | None:
    """What two constants come to, so that it still takes the unit of what it meets; None for anything else, and for no number."""
    if not left.operation == right.operation == "constant" or (sign == "/" and right.value == 0):
        return None
    one, other = left.value, right.value
    value = one + other if sign == "+" else one - other if sign == "-" else one * other if sign == "*" else one / other
    return float(value) if math.isfinite(value) else None


def _at(node: exp.Expression) -> int:
    """Where a part of the text begins: at the first of its words whose place the parser knows."""
    return min((part.meta["start"] for part in node.walk() if "start" in part.meta), default=0)


def _offset(text: str, line: int, column: int) -> int:
    starts = [0] + [at + 1 for at, letter in enumerate(text) if letter == "\n"]
    return min(max(starts[min(line, len(starts)) - 1] + max(column, 0), 0), len(text))
