"""The one error that people meet: what went wrong, where, and what to do next.

In: three sentences. Out: an exception whose text is one readable line; `fleet` prints it without a trace.
"""

from __future__ import annotations


class FleetError(Exception):
    """Something a person can act on.

    what: what went wrong, naming the thing (file, table, drive, server).
    where: the place in it (line, offset, row, field), if there is one.
    remedy: what to do next.
    """

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        advice = f" {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}.{advice}"

    # Spark and process pools send exceptions between processes; keyword arguments need help to survive pickling.
    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.remedy, self.__dict__))


def _rebuild(
    kind: type[FleetError], what: str, where: str | None, remedy: str | None, state: dict[str, object]
) -> FleetError:
    error = kind.__new__(kind)
    FleetError.__init__(error, what, where=where, remedy=remedy)
    error.__dict__.update(state)
    return error
