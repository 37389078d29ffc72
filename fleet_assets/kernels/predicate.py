"""A compiled predicate, row by row.

In: a program in postfix order, and columns with what is known of them. Out: for each row TRUE, FALSE or UNKNOWN (SQL's
three-valued logic). The program is plain arrays, so that whoever has numpy and numba can run it, a vehicle too;
curate/predicates.py makes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

FALSE, TRUE, UNKNOWN = 0, 1, 2
# Operations. _F: of float64, _I: of int64 (also text, as codes, and true or false, as 1 and 0).
(
    COLUMN_F, COLUMN_I, CONSTANT_F, CONSTANT_I, TO_F,
    ADD, SUBTRACT, MULTIPLY, DIVIDE, NEGATE, ABSOLUTE,
    EQUAL_F, LESS_F, LESS_EQUAL_F, EQUAL_I, LESS_I, LESS_EQUAL_I,
    NOT, AND, OR, IS_NULL, COALESCE,
) = range(22)  # fmt: skip


@dataclass(frozen=True)
class Program:
    """operation: int64 [n]; argument: int64 [n], a number of a column or constant. floats, ints: constants. depth: of the stack.

    float_columns, int_columns: names, in the order in which `evaluate` takes them. texts: per int column the words that its
    codes number (-1: any other), None where it holds whole numbers.
    """

    operation: np.ndarray
    argument: np.ndarray
    floats: np.ndarray
    ints: np.ndarray
    depth: int
    float_columns: tuple[str, ...]
    int_columns: tuple[str, ...]
    texts: tuple[tuple[str, ...] | None, ...]


def evaluate(
    program: Program, floats: np.ndarray, floats_known: np.ndarray, ints: np.ndarray, ints_known: np.ndarray
) -> np.ndarray:
    """int8 [rows]: TRUE, FALSE or UNKNOWN. floats: float64 [float_columns, rows]; ints: int64 [int_columns, rows]; known: bool of
    the same shapes. A float that is no number is not known."""
    if floats.shape != floats_known.shape or ints.shape != ints_known.shape or floats.shape[1] != ints.shape[1]:
        raise ValueError("columns and what is known of them differ in shape")
    if floats.shape[0] != len(program.float_columns) or ints.shape[0] != len(program.int_columns):
        raise ValueError("the program needs other columns")
    out = np.empty(floats.shape[1], dtype=np.int8)
    _run(
        program.operation, program.argument, program.floats, program.ints, program.depth,
        floats, floats_known, ints, ints_known, out,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _run(  # type: ignore[no-untyped-def]
    operation, argument, constant_f, constant_i, depth, floats, floats_known, ints, ints_known, out
):  # fmt: skip
    f, i = np.empty(depth), np.empty(depth, dtype=np.int64)
    known = np.empty(depth, dtype=np.bool_)
    for row in range(out.size):
        top = -1  # the place on the stack that was written last
        for step in range(operation.size):
            code, at = operation[step], argument[step]
            if code <= CONSTANT_I:
                top += 1
                known[top], f[top], i[top] = True, 0.0, 0
                if code == COLUMN_F:
                    f[top] = floats[at, row]
                    known[top] = floats_known[at, row] and f[top] == f[top]
                elif code == COLUMN_I:
                    i[top] = ints[at, row]
                    known[top] = ints_known[at, row]
                elif code == CONSTANT_F:
                    f[top] = constant_f[at]
                else:
                    i[top] = constant_i[at]
            elif code == TO_F:
                f[top] = float(i[top])
            elif code == NEGATE:
                f[top] = -f[top]
            elif code == ABSOLUTE:
                f[top] = abs(f[top])
            elif code == NOT:
                i[top] = 1 - i[top]
            elif code == IS_NULL:
                i[top] = 0 if known[top] else 1
                known[top] = True
            else:
                top -= 1
                _pair(code, f, i, known, top)
        out[row] = UNKNOWN if not known[0] else TRUE if i[0] != 0 else FALSE


@njit(cache=True, nogil=True, error_model="numpy")
def _pair(code, f, i, known, top):  # type: ignore[no-untyped-def]
    """An operation on two values: at top and above it; the result goes to top."""
    other = top + 1
    both = known[top] and known[other]
    if code == AND:
        false = (known[top] and i[top] == 0) or (known[other] and i[other] == 0)
        i[top] = 0 if false else 1
        known[top] = false or both
        return
    if code == OR:
        true = (known[top] and i[top] != 0) or (known[other] and i[other] != 0)
        i[top] = 1 if true else 0
        known[top] = true or both
        return
    if code == COALESCE:
        if not known[top]:
            f[top], i[top], known[top] = f[other], i[other], known[other]
        return
    known[top] = both
    a, b = f[top], f[other]
    if code == EQUAL_F:
        i[top] = 1 if a == b else 0
    elif code == LESS_F:
        i[top] = 1 if a < b else 0
    elif code == LESS_EQUAL_F:
        i[top] = 1 if a <= b else 0
    elif code == EQUAL_I:
        i[top] = 1 if i[top] == i[other] else 0
    elif code == LESS_I:
        i[top] = 1 if i[top] < i[other] else 0
    elif code == LESS_EQUAL_I:
        i[top] = 1 if i[top] <= i[other] else 0
    else:
        if code == ADD:
            f[top] = a + b
        elif code == SUBTRACT:
            f[top] = a - b
        elif code == MULTIPLY:
            f[top] = a * b
        elif b == 0.0:
            known[top] = False
        else:
            f[top] = a / b
        if f[top] != f[top]:  # infinity minus infinity, and the like, is not known
            known[top] = False
