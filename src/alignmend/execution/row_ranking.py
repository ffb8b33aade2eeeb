"""The highest scores of each row: found at once, since a row fits in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from alignmend.algebra.programs import RowTop, entries_of
from alignmend.errors import AlignmendError, NonFiniteError, ParameterError

Scores = npt.NDArray[np.float32]
Truth = npt.NDArray[np.bool_]


def highest_in_rows(scores: Scores, count: int) -> Truth:
    """True on exactly `count` elements of each row of `scores` [rows, columns], 0 < count < columns.

    The highest, equal ones in order of index.
    """
    columns = scores.shape[1]
    cut = np.partition(scores, columns - count, axis=1)[:, columns - count, None]
    kept: Truth = scores > cut
    ties = scores == cut
    missing = count - np.count_nonzero(kept, axis=1)
    tied = np.flatnonzero(np.count_nonzero(ties, axis=1) > missing)
    ties[tied] &= np.cumsum(ties[tied], axis=1) <= missing[tied, None]
    kept |= ties
    return kept


def unfit_row(ranking: RowTop, scores: Scores) -> AlignmendError | None:
    """What is wrong with scores that cannot be ranked; None where nothing is."""
    lowest, highest = float(scores.min(initial=0.0)), float(scores.max(initial=0.0))
    if ranking.score is None:
        raise TypeError("ranking.score is None")
    entry = entries_of(ranking.score)[0]
    where = f"{entry.name} in {entry.path.parent.name}/{entry.path.name}"
    if not np.isfinite(lowest + highest):  # also where one element is NaN
        return NonFiniteError(
            f"a score made of {where} is NaN or infinite, which cannot be ranked",
            advice="mend the file, or select other tensors",
        )
    if lowest < 0.0:
        return ParameterError(f"a score of {where} is negative ({lowest:.4g}): scores start at zero")
    return None
