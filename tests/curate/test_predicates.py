"""The predicate language: what it takes, what it refuses and where, and that the compiled program says what the tree says."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.curate.predicate_forms import outcomes, program_of, selected, spark_sql
from fleet_assets.curate.predicates import DEPTH, LENGTH, Catalogue, PredicateError, Term, parse
from fleet_assets.kernels.predicate import FALSE, TRUE, UNKNOWN

CATALOGUE = Catalogue(
    {"ego_motion": "features.ego_motion", "context": "ingest.context", "frames": "synchronise.frames",
     "matches": "synchronise.matches", "drives": "ingest.drives"}
)  # fmt: skip


def rows(**columns: Any) -> pa.Table:
    return pa.table({name.replace("__", "."): values for name, values in columns.items()})


def said(text: str, **columns: Any) -> list[int]:
    return outcomes(program_of(parse(text, CATALOGUE)), rows(**columns)).tolist()


# ---- meaning ---------------------------------------------------------------------------------------------------------


def test_only_true_selects() -> None:
    predicate = parse("ego_motion.speed_mps > 10", CATALOGUE)
    table = rows(ego_motion__speed_mps=pa.array([11.0, 10.0, None]))
    assert outcomes(program_of(predicate), table).tolist() == [TRUE, FALSE, UNKNOWN]
    assert selected(predicate, table).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("complete AND frames.speed_mps > 1", [UNKNOWN, FALSE, FALSE]),
        ("complete OR frames.speed_mps > 1", [TRUE, UNKNOWN, UNKNOWN]),
        ("NOT complete", [FALSE, TRUE, UNKNOWN]),
        ("complete IS TRUE", [TRUE, FALSE, FALSE]),
        ("complete IS NOT TRUE", [FALSE, TRUE, TRUE]),
        ("complete IS NOT NULL", [TRUE, TRUE, FALSE]),
        ("complete IS FALSE", [FALSE, TRUE, FALSE]),
        ("complete IS NULL", [FALSE, FALSE, TRUE]),
        ("coalesce(frames.speed_mps, 3) = 3", [TRUE, TRUE, FALSE]),
        ("coalesce(complete, FALSE)", [TRUE, FALSE, FALSE]),
    ],
)
def test_three_values(text: str, expected: list[int]) -> None:
    speed = pa.array([None, None, 0.0], pa.float64())
    assert said(text, frames__complete=pa.array([True, False, None]), frames__speed_mps=speed) == expected


def test_text_and_lists() -> None:
    light = pa.array(["night", "day", None])
    assert said("context.light = 'night'", context__light=light) == [TRUE, FALSE, UNKNOWN]
    assert said("light IN ('dusk', 'day')", context__light=light) == [FALSE, TRUE, UNKNOWN]
    assert said("light NOT IN ('dusk', 'day')", context__light=light) == [TRUE, FALSE, UNKNOWN]
    assert said("light <> 'it''s'", context__light=light) == [TRUE, TRUE, UNKNOWN]
    assert said("light IS NOT NULL", context__light=light) == [TRUE, TRUE, FALSE]


def test_divisions_by_zero_are_not_known() -> None:
    assert said("1 / frames.speed_mps > 0", frames__speed_mps=[0.0, 2.0, -2.0]) == [UNKNOWN, TRUE, FALSE]
    assert said("frames.speed_mps - frames.speed_mps = 0", frames__speed_mps=[math.inf, 1.0]) == [UNKNOWN, TRUE]


def test_stamps_are_compared_exactly() -> None:
    t_ns = 1_767_323_045_000_000_001
    assert said(f"frames.t_ns = {t_ns}", frames__t_ns=[t_ns, t_ns + 1]) == [TRUE, FALSE]


def test_units_are_brought_together() -> None:
    assert said("unit(36, 'km/h') < frames.speed_mps", frames__speed_mps=[9.9, 10.1]) == [FALSE, TRUE]
    assert said("frames.speed_mps < unit(36, 'km/h') / 2", frames__speed_mps=[4.9, 5.1]) == [TRUE, FALSE]
    assert said("late_ns > unit(20, 'ms')", matches__late_ns=[20_000_000, 20_000_001]) == [FALSE, TRUE]
    assert said(
        "frames.speed_mps / unit(2, 's') > accel_x_mps2", frames__speed_mps=[4.0], frames__accel_x_mps2=[1.9]
    ) == [TRUE]


def test_scenarios_are_made_of_scenarios() -> None:
    scenarios = {
        "night": "light = 'night'",
        "slow": "frames.speed_mps < 3",
        "crawling": "scenario.night AND scenario.slow",
    }
    predicate = parse("NOT scenario.crawling", CATALOGUE, scenarios)
    assert predicate.columns == ("context.light", "frames.speed_mps")
    assert predicate.scenarios == ("crawling", "night", "slow")
    table = rows(context__light=["night", "day", None, None], frames__speed_mps=[1.0, 1.0, 1.0, 9.0])
    assert outcomes(program_of(predicate), table).tolist() == [FALSE, TRUE, UNKNOWN, TRUE]


# ---- what is refused, and where --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "at", "why"),
    [
        ("ego_motion.sped_mps > 1", "ego_motion", "did you mean ego_motion.speed_mps"),
        ("complete AND nope.speed > 1", "nope", "There is no table 'nope'"),
        ("speed_mps > 1", "speed_mps", "in several tables"),
        ("frames.speed_mps > lateral_accel_mps2", "frames", r"m/s\^2 met m/s "),
        ("complete AND late_ns > bracket_ns + unit(1, 'm')", "bracket_ns", "ns met m"),
        ("frames.t_ns > stopped_s", "frames", "s met ns"),
        ("light = 3", "light", "text compared with a whole number"),
        ("light > 'day'", "light", "has no order"),
        ("frames.speed_mps", "frames", "a number, where a condition should be"),
        ("complete AND personal_data = 'x'", "personal_data", "which no predicate compares"),
        ("complete AND random() > 1", "random", "RAND is not taken"),
        ("complete AND sleep(9) > 1", "sleep", "There is no function sleep"),
        ("complete = NULL", "complete", "NULL alone"),
        ("frames.speed_mps > (SELECT 1)", "1", "SUBQUERY"),
        ("DROP TABLE x", "x", "DROP is not taken"),
        ("complete; complete", "complete", "2 expressions"),
        ("complete AND scenario.nigth", "scenario", "There is no scenario 'nigth'"),
        ("scenario.loop", "scenario", "made of itself: loop -> other -> loop"),
        ("complete AND (frames.speed_mps > 1", "1", "no predicate"),
        ("complete AND unit(1, '1;2') < frames.speed_mps", "'1;2'", "is no unit"),
        ("complete AND frames.speed_mps < unit(1e308, 'km/s')", "unit(1e308", "is no number in m/s"),
        ("complete AND late_ns < unit(1e308, 's')", "unit(1e308", "is no number in ns"),
        ("frames.frame BETWEEN SYMMETRIC 3 AND 1", "frames", "BETWEEN with symmetric"),
        ("frames.speed_mps < " + "9" * 400, "9", "is out of range"),
        ("", "", "0 expressions"),
        ("complete\x00", "\x00", "cannot be printed"),
        ("(" * (DEPTH + 1) + "complete" + ")" * (DEPTH + 1), "", "nested deeper"),
        ("(" * 1900 + "complete" + ")" * 1900, "", "nested deeper|no predicate"),
        ("complete OR " * (LENGTH // 12) + "complete OR complete", "", "at most 4000"),
    ],
)  # fmt: skip
def test_mistakes_have_a_place(text: str, at: str, why: str) -> None:
    scenarios = {"loop": "scenario.other", "other": "NOT scenario.loop", "night": "light = 'night'"}
    with pytest.raises(PredicateError, match=why) as caught:
        parse(text, CATALOGUE, scenarios)
    if at:
        place = caught.value.position
        assert text[place:].startswith(at) or "made of itself" in why, text[place:]
        assert f"column {place - text.rfind(chr(10), 0, place)}" in str(caught.value)


def test_scenarios_cannot_grow_without_bound() -> None:
    scenarios = {"s0": "complete"} | {f"s{n}": f"scenario.s{n - 1} OR scenario.s{n - 1}" for n in range(1, 30)}
    for name in ("s12", "s18"):
        with pytest.raises(PredicateError, match="more than 2000 parts"):
            parse(f"scenario.{name}", CATALOGUE, scenarios)
    with pytest.raises(PredicateError, match="nested deeper"):
        parse("scenario.s29", CATALOGUE, scenarios)


def test_what_is_refused_names_the_scenario() -> None:
    with pytest.raises(PredicateError, match="Scenario bad: text has no order"):
        parse("scenario.bad", CATALOGUE, {"bad": "light < 'x'"})


def test_long_lists_are_no_deep_trees() -> None:
    many = ", ".join(str(number) for number in range(500))
    assert said(f"frames.t_ns IN ({many})", frames__t_ns=[499, 500]) == [TRUE, FALSE]


# ---- the program says what the tree says ----------------------------------------------------------------------------


def reference(term: Term, row: dict[str, Any]) -> Any:
    """The tree, walked in plain Python; None is not known."""
    if term.operation == "column":
        value = row[term.value]
        return None if isinstance(value, float) and math.isnan(value) else value
    if term.operation == "constant":
        return term.value
    values = [reference(argument, row) for argument in term.arguments]
    match term.operation:
        case "and":
            return False if False in values else None if None in values else True
        case "or":
            return True if True in values else None if None in values else False
        case "is null":
            return values[0] is None
        case "coalesce":
            return values[0] if values[0] is not None else values[1]
    if None in values:
        return None
    one, other = values[0], values[-1]
    match term.operation:
        case "not":
            return not one
        case "float":
            return float(one)
        case "negate":
            return -one
        case "abs":
            return abs(one)
        case "=":
            return one == other
        case "<":
            return one < other
        case "<=":
            return one <= other
        case "/":
            found = one / other if other else math.nan
        case "+":
            found = one + other
        case "-":
            found = one - other
        case "*":
            found = one * other
    return None if math.isnan(found) else found


NUMBERS = ["frames.speed_mps", "ego_motion.speed_mps", "unit(3, 'm/s')", "0", "2.5", "1e300"]
WHOLE = ["frames.frame", "3", "0", "2.0", "2.5", "ingest.context.contradictions / unit(1, 'count')"]
OF_TEXT = ["= 'night'", "<> 'it''s'", "IN ('rain', 'night')", "IS NOT NULL"]


def numbers(of: list[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(of),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from("+-"), inner).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
            st.tuples(inner, st.sampled_from(["* 2", "/ 3", "* 0", "/ 0", "* -1.5e200"])).map(" ".join),
            inner.map(lambda one: f"abs({one})"),
            inner.map(lambda one: f"-({one})"),
            st.tuples(inner, inner).map(lambda p: f"coalesce({p[0]}, {p[1]})"),
        ),
        max_leaves=4,
    )


def compared(of: list[str]) -> st.SearchStrategy[str]:
    number = numbers(of)
    return st.one_of(
        st.tuples(number, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), number).map(" ".join),
        st.tuples(number, number, number).map(lambda p: f"{p[0]} BETWEEN {p[1]} AND {p[2]}"),
        number.map(lambda one: f"({one}) IS NULL"),
        st.tuples(number, number, number).map(lambda p: f"({p[0]}) NOT IN ({p[1]}, {p[2]})"),
    )


BOOLEANS = st.recursive(
    st.one_of(
        compared(NUMBERS), compared(WHOLE),
        st.sampled_from(["complete", "TRUE", "FALSE", "frames.speed_mps <= unit(3, 'km/h')"]),
        st.tuples(st.sampled_from(["light", "weather"]), st.sampled_from(OF_TEXT)).map(" ".join),
    ),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
        inner.map(lambda one: f"NOT ({one})"),
        st.tuples(inner, st.sampled_from(["IS TRUE", "IS NOT FALSE", "IS NULL"])).map(lambda p: f"({p[0]}) {p[1]}"),
    ),
    max_leaves=8,
)  # fmt: skip
SPEEDS = st.sampled_from(
    [None, math.nan, 0.0, -0.0, 5e-324, 1.0, 2.5, 3 / 3.6, 1e300, -1e300, sys.float_info.max, math.inf, -math.inf]
)
ROW = st.fixed_dictionaries(
    {
        "frames.speed_mps": SPEEDS,
        "ego_motion.speed_mps": SPEEDS,
        "frames.frame": st.sampled_from([None, 0, 2, 3, -(2**63), 2**63 - 1]),
        "context.contradictions": st.sampled_from([None, 0, 1, 7]),
        "frames.complete": st.sampled_from([None, True, False]),
        "context.light": st.sampled_from([None, "night", "day", "it's"]),
        "context.weather": st.sampled_from([None, "rain", "clear"]),
    }
)
SCHEMA = pa.schema(
    [("frames.speed_mps", pa.float64()), ("ego_motion.speed_mps", pa.float64()), ("frames.frame", pa.int64()),
     ("context.contradictions", pa.int64()), ("frames.complete", pa.bool_()), ("context.light", pa.string()),
     ("context.weather", pa.string())]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(text=BOOLEANS, table=st.lists(ROW, min_size=1, max_size=12))
def test_the_program_says_what_the_tree_says(text: str, table: list[dict[str, Any]]) -> None:
    predicate = parse(text, CATALOGUE)
    expected = [{None: UNKNOWN, True: TRUE, False: FALSE}[reference(predicate.term, row)] for row in table]
    found = outcomes(program_of(predicate), pa.Table.from_pylist(table, schema=SCHEMA))
    assert found.tolist() == expected
    assert spark_sql(predicate).count("(") == spark_sql(predicate).count(")")


def test_a_vehicle_runs_it_without_the_parser() -> None:
    """The program is arrays and names; what runs it imports neither sqlglot nor pyarrow."""
    program = program_of(parse("ego_motion.speed_mps > 10", CATALOGUE))
    script = (
        "import sys, numpy as np\n"
        "from fleet_assets.kernels.predicate import Program, evaluate\n"
        f"p = Program(np.array({program.operation.tolist()}), np.array({program.argument.tolist()}),"
        f" np.array({program.floats.tolist()}), np.array({program.ints.tolist()}, dtype=np.int64), {program.depth},"
        f" {program.float_columns}, {program.int_columns}, {program.texts})\n"
        "nothing = np.zeros((0, 2))\n"
        "ints, known = nothing.astype(np.int64), nothing.astype(bool)\n"
        "print(evaluate(p, np.array([[11.0, 9.0]]), np.ones((1, 2), bool), ints, known).tolist())\n"
        "assert not {'sqlglot', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str([TRUE, FALSE]), done.stderr


def test_columns_that_do_not_fit_the_program() -> None:
    program = program_of(parse("frames.speed_mps > 1", CATALOGUE))
    with pytest.raises(KeyError):
        outcomes(program, rows(other=[1.0]))
    from fleet_assets.kernels.predicate import evaluate

    nothing = np.zeros((0, 2))
    with pytest.raises(ValueError, match="other columns"):
        evaluate(program, nothing, nothing.astype(bool), nothing.astype(np.int64), nothing.astype(bool))
