"""Tables across boards: mean gain over a baseline, and mean rank."""

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from benchmark.leaderboard.rows import Board, Overall, OverallRow, Row
from common.errors import UsageError
from models.decoder_name import DecoderName

BASELINE = "fcn"
Identity = tuple[str, str, str]
"""Backbone, label, settings."""


def overall(tables: Iterable[Board], baseline: str | None = None) -> list[Overall]:
    """One table for each machine (device, threads, precision) with several main boards.

    A row is complete if it has a score in every board. Complete rows have Δm, the mean over boards
    of ±(m − baseline's m) / baseline's m in per cent (m: the ranking metric; above 0 is better),
    and a mean rank over the boards, where equal scores share the mean of their places. They are
    sorted by mean rank. Incomplete rows follow, with the boards that they lack. Wirings of one
    family (``family_of``) form one row; an incomplete member has no row of its own.

    baseline: a label, or "label on backbone"; default: fcn, or the first complete row if fcn is not
    complete. Raises UsageError if no machine has several boards and a complete row of that name.
    """
    machines: dict[str, list[Board]] = {}
    for board in tables:
        if board.main and board.measured:
            machines.setdefault(board.machine, []).append(board)
    result = [_table(m, boards, baseline) for m, boards in machines.items() if len(boards) > 1]
    if baseline is not None and not result:
        raise UsageError(f"--baseline {baseline}: no device has several boards to compare across")
    if baseline is not None and not any(table.baseline for table in result):
        names = dict.fromkeys(
            _name(row) for table in result for row in table.rows if row.rank is not None
        )
        complete = (
            f"those with a score in every board are {', '.join(names)}"
            if names
            else ("no row has a score in every board")
        )
        raise UsageError(f"--baseline {baseline}: {complete}")
    return result


def _table(machine: str, boards: Sequence[Board], baseline: str | None) -> Overall:
    scores: dict[Identity, dict[str, float]] = {}
    families: dict[Identity, set[Identity]] = {}
    for board in boards:
        members: dict[Identity, list[Row]] = {}
        most: dict[Identity, Row] = {}
        for row in board.measured:
            own = row.backbone, row.label, row.settings
            # rows of other training images or wirings may share a name: take the most seeds
            if own not in most or len(row.seeds) > len(most[own].seeds):
                most[own] = row
                scores.setdefault(own, {})[board.title] = row.metrics[board.columns[0]]
            if (family := family_of(row)) is not None:
                members.setdefault((row.backbone, family, row.settings), []).append(row)
        for name, alike in members.items():
            chosen = _chosen(alike, board)
            if chosen is not None:
                scores.setdefault(name, {})[board.title] = chosen.metrics[board.columns[0]]
                families.setdefault(name, set()).add((chosen.backbone, chosen.label, name[2]))
    titles = [board.title for board in boards]
    for name, parts in families.items():
        if len(parts) == 1:  # the same wiring everywhere has its own row
            del scores[name]
        else:
            for part in parts:
                if len(scores[part]) < len(titles):
                    scores.pop(part)
    rows = [
        OverallRow(*name, {title: known.get(title) for title in titles},
                   missing=[title for title in titles if title not in known])
        for name, known in sorted(scores.items())
    ]  # fmt: skip
    complete = [row for row in rows if not row.missing]
    _mean_ranks(complete, boards)
    reference = _baseline(complete, baseline)
    if reference is not None:
        _gains(complete, reference, boards)
    complete.sort(key=lambda r: (r.mean_rank or 0, r.label, r.backbone, r.settings))
    incomplete = sorted((row for row in rows if row.missing), key=lambda row: len(row.missing))
    label = "" if reference is None else _name(reference)
    return Overall(
        machine, titles, label, complete + incomplete,
        {board.title: board.columns[0] for board in boards},
        {board.title: board.sign > 0 for board in boards},
    )  # fmt: skip


def family_of(row: Row) -> str | None:
    """The family of a wiring file, its name up to the first hyphen; None for other rows.

    ``found-camvid.json`` and ``found-seven-scenes.json`` share the family ``found-*``, one row
    across boards: they come from the same method, applied to each task or data set.
    """
    family, hyphen, _ = row.label.partition("-")
    return f"{family}-*" if DecoderName.parse(row.decoder).file and hyphen else None


def _chosen(rows: Sequence[Row], board: Board) -> Row | None:
    """A family's only row in a board, or the one named after the data set; None if ambiguous."""

    def suffix(row: Row) -> str:
        return row.label.partition("-")[2]

    for alike in (
        list(rows),
        [row for row in rows if suffix(row) == board.dataset],
        [row for row in rows if suffix(row) in board.title],
    ):
        if len(alike) == 1:
            return alike[0]
    return None


def _mean_ranks(rows: Sequence[OverallRow], boards: Sequence[Board]) -> None:
    ordered = {
        board.title: sorted(board.sign * (row.scores[board.title] or 0) for row in rows)
        for board in boards
    }
    for row in rows:
        places = []
        for board in boards:
            mine, scores = board.sign * (row.scores[board.title] or 0), ordered[board.title]
            better = len(scores) - bisect_right(scores, mine)
            equal = len(scores) - better - bisect_left(scores, mine)
            places.append(better + (equal + 1) / 2)
        row.mean_rank = statistics.fmean(places)
    means = sorted(row.mean_rank or 0 for row in rows)
    for row in rows:
        row.rank = 1 + bisect_left(means, row.mean_rank or 0)


def _gains(rows: Sequence[OverallRow], reference: OverallRow, boards: Sequence[Board]) -> None:
    if not all(reference.scores.values()):
        return  # a score of 0 has no relative gain
    for row in rows:
        gains = []
        for board in boards:
            mine, theirs = row.scores[board.title] or 0, reference.scores[board.title] or 0
            gains.append(board.sign * (mine - theirs) / abs(theirs))
        row.delta_m = 100 * statistics.fmean(gains)


def _baseline(complete: Sequence[OverallRow], name: str | None) -> OverallRow | None:
    for row in complete:
        if (name or BASELINE) in (row.label, f"{row.label} on {row.backbone}", _name(row)):
            return row
    return complete[0] if complete and name is None else None


def _name(row: OverallRow) -> str:
    settings = f" ({row.settings})" if row.settings else ""
    return f"{row.label}{settings} on {row.backbone}"
