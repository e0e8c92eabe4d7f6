"""How few clients the sums of several sessions isolate, exactly.

A sum over a set of clients is a row of zeros and ones with a column for each client; what follows from several sums is
every linear combination of their rows. A new sum is safe beside past ones unless, with some combination of them taken
off, a sum over few clients is left, with whatever coefficients. That is the distance of a row from a linear code over
the rationals, which is hard in general and easy in the cases that occur:

A set S of clients is all that is left of some combination, with coefficients y that give the new row 1, iff y is
orthogonal to every column outside S; and such a y exists iff the columns outside S do not span the unit vector of the
new row. So S isolates iff it meets every *witness*, a set of columns that spans it. Elimination finds a witness; S
holds one of its columns, and for each that goes another witness is found, until none is left or S is too large. Clients
that are in the same sums have equal columns, which make one class that goes or stays as a whole. Witnesses
that share no client bound S from below and end most searches before they begin.

Rows are integers whose bits are the clients. Arithmetic is in exact integers: no tolerance decides what is independent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from secagg.errors import DifferencingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

MOST_WORK = 5_000_000
"""Entries of tableaus that one question may compute: a few seconds."""
STAYS = 2**62
"""Room of a class that must not go."""


def fewest_isolated(families: Iterable[tuple[frozenset[int], int]], enough: int) -> int:
    """Fewest clients that any family isolates, or ``enough`` where all of them leave at least so many.

    Args:
        families: Past sums and a new sum of the same unknowns, as sets of clients: bit i stands for client i.
        enough: What is safe.

    Raises:
        DifferencingError: Finding out takes more than ``MOST_WORK``.
    """
    work = Work(MOST_WORK)
    solved = set()
    smallest = enough
    for past, new in families:
        if smallest == 1:
            break
        if len(past) > 1:
            if (past, new) in solved:
                continue
            solved.add((past, new))
        smallest = fewest_left(past, new, smallest, work) or smallest
    return smallest


def fewest_left(past: frozenset[int], new: int, enough: int, work: Work) -> int:
    """Fewest clients over whom the new sum, plus a combination of past ones, is a sum.

    Args:
        past: Past sums.
        new: The new one.
        enough: Where the search ends.
        work: What it may take.

    Returns:
        Zero if the new sum follows from the past ones and tells nothing, otherwise at most ``enough``.

    Raises:
        DifferencingError: The work does not suffice.
    """
    work.spend(1)
    if new in past:
        return 0
    if len(past) < 2:
        return min([enough, new.bit_count(), *((new ^ old).bit_count() for old in past)])
    classes = sorted(_classes([*past, new]), key=int.bit_count, reverse=True)
    room = np.array([one.bit_count() for one in classes])
    rows = [[int(bool(one & row)) for one in classes] + [0] for row in past]
    rows.append([int(bool(one & new)) for one in classes] + [1])
    tableau = _Tableau(np.array(rows, object), [], 1, work)
    if not tableau.reduce():
        return 0
    least = tableau.copy().disjoint_witnesses(room, enough)
    return next((size for size in range(least, enough) if _cut(tableau.copy(), room, size)), enough)


class Work:
    """What is left to spend on one question.

    Args:
        left: Entries of tableaus.
    """

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, amount: int) -> None:
        """Takes some away.

        Raises:
            DifferencingError: Less is left.
        """
        if amount > self.left:
            raise DifferencingError(
                "whom this session and the earlier ones isolate takes too long to tell: leave this one out"
            )
        self.left -= amount


@dataclass
class _Tableau:
    """The columns, last the unit vector of the new row, in terms of a basis: ``rows / lead`` (integer pivoting).

    Args:
        rows: Integers of any size, (rank, classes + 1) object.
        basis: The column that each row stands for.
        lead: Their common denominator.
        work: What is left to spend.
    """

    rows: NDArray[np.object_]
    basis: list[int]
    lead: int
    work: Work

    def copy(self) -> _Tableau:
        return replace(self, rows=self.rows.copy(), basis=self.basis.copy())

    def pivot(self, row: int, column: int) -> None:
        """Lets ``row`` stand for ``column``. Every entry stays a minor of the first tableau, so division is exact."""
        self.work.spend(self.rows.size)
        lead, own = self.rows[row, column], self.rows[row].copy()
        self.rows = (self.rows * lead - np.outer(self.rows[:, column], own)) // self.lead
        self.rows[row] = own
        self.lead = lead

    def reduce(self) -> bool:
        """Finds a first basis, of large classes; false if the unit vector lies outside the span of all columns."""
        for row in range(len(self.rows)):
            choices = np.flatnonzero(self.rows[row, :-1])
            self.basis.append(int(choices[0]) if len(choices) else -1)
            if len(choices):
                self.pivot(row, self.basis[row])
        independent = [row for row, column in enumerate(self.basis) if column >= 0]
        spanned = not any(self.rows[row, -1] for row, column in enumerate(self.basis) if column < 0)
        self.rows, self.basis = self.rows[independent], [self.basis[row] for row in independent]
        return spanned

    def witness(self, room: NDArray[np.int64]) -> list[int] | None:
        """Columns that have room and span the unit vector; None if all that have room together do not."""
        while True:
            spanning: list[int] = np.flatnonzero(self.rows[:, -1]).tolist()
            gone = [row for row in spanning if not room[self.basis[row]]]
            if not gone:
                return [self.basis[row] for row in spanning]
            instead = self.instead(gone[0], room)
            if instead is None:
                return None
            self.basis[gone[0]] = instead
            self.pivot(gone[0], instead)

    def instead(self, row: int, room: NDArray[np.int64]) -> int | None:
        """The column with most room that the row could stand for as well."""
        choices = np.flatnonzero((self.rows[row, :-1] != 0) & (room > 0))
        return int(choices[room[choices].argmax()]) if len(choices) else None

    def disjoint_witnesses(self, room: NDArray[np.int64], enough: int) -> int:
        """How many witnesses, up to ``enough``, are found that share no client: fewer clients meet not all of them."""
        room, found = room.copy(), 0
        while found < enough and (columns := self.witness(room)) is not None:
            least = int(room[columns].min())
            room[columns] -= least
            found += least
        return min(found, enough)


def _cut(tableau: _Tableau, room: NDArray[np.int64], size: int) -> bool:
    """Whether classes of ``size`` clients in all, or fewer, can go so that no witness is left."""
    witness = tableau.witness(room)
    if witness is None:
        return True
    if size > 1 and tableau.copy().disjoint_witnesses(room, size + 1) > size:
        return False
    room = room.copy()
    for column in witness:
        members = int(room[column])
        if members > size:
            continue
        room[column] = 0
        if tableau.instead(tableau.basis.index(column), room) is None:
            return True
        if members < size and _cut(tableau.copy(), room, size - members):
            return True
        room[column] = STAYS
    return False


def _classes(sums: Iterable[int]) -> set[int]:
    """The sets of clients that are in the same sums."""
    classes: set[int] = set()
    for one in sums:
        rest = one
        refined = set()
        for known in classes:
            refined |= {known & one, known & ~one}
            rest &= ~known
        classes = (refined | {rest}) - {0}
    return classes
