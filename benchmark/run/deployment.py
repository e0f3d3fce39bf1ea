"""A run's network in the runtimes and precisions that it may ship in, scored into its result."""

from collections.abc import Sequence
from pathlib import Path

from benchmark.experiment.plan import PlannedRun
from benchmark.results.result import Result
from benchmark.results.store import save
from benchmark.scoring.rescore import opened
from benchmark.scoring.views import Views
from benchmark.speed.accuracy import deployed
from benchmark.speed.runtimes import Pair
from common.errors import UserError, first_line
from common.progress import Listener
from models.decoder_name import DecoderName


def score_all(
    runs: Sequence[PlannedRun],
    results: Sequence[Result],
    pairs: Sequence[Pair],
    calibrate: int,
    listener: Listener,
) -> list[Result]:
    """The results with the scores of ``pairs``, written beside those that the runs have.

    calibrate: as for ``deployed``. A run that is failed or cannot be opened stays as it is.
    """
    done = []
    for run, result in zip(runs, results, strict=True):
        done.append(result)
        if result.status == "finished":
            try:
                done[-1] = _scored(result, run.folder, pairs, calibrate, listener)
            except UserError as error:
                name = DecoderName.parse(run.config.decoder).label
                listener.message(f"{name}: no scores of runtimes: {first_line(error)}")
    return done


def _scored(
    result: Result, folder: Path, pairs: Sequence[Pair], calibrate: int, listener: Listener
) -> Result:
    """Pairs that have scores are not scored again; those that failed are."""
    kept = {(row.runtime, row.precision): row for row in result.pairs if row.reason is None}
    missing = [pair for pair in pairs if pair not in kept]
    if missing:
        scoring = opened(folder, {}, Views(), result.config.split, listener=listener)
        found = deployed(scoring, missing, calibrate).pairs
        rows = kept | {(row.runtime, row.precision): row for row in found}
        result = result.model_copy(update={"pairs": [*rows.values()]})
        save(folder, result)
    return result
