"""A run's network in the runtimes and precisions that it may ship in, scored into its result."""

from collections.abc import Sequence

from benchmark.experiment.plan import PlannedRun
from benchmark.results.result import Result
from benchmark.results.runtimes import Pair
from benchmark.results.store import amend, load
from benchmark.scoring.rescore import opened
from benchmark.scoring.views import Views
from benchmark.speed.accuracy import deployed
from common.errors import UserError, reason
from common.files import locked
from common.progress import Listener
from models.decoder_name import DecoderName


def score_all(
    runs: Sequence[PlannedRun],
    done: dict[str, Result],
    pairs: Sequence[Pair],
    calibrate: int,
    listener: Listener,
) -> None:
    """Score finished runs in ``pairs``; into ``done``, results by key, and beside the runs.

    calibrate: as for ``deployed``. A run that is failed or cannot be scored stays as it is.
    """
    for run in runs:
        if done[run.key].status == "finished":
            try:
                done[run.key] = _scored(done[run.key], run, pairs, calibrate, listener)
            except Exception as error:  # it must not cost the other runs
                name = DecoderName.parse(run.config.decoder).label
                listener.message(f"{name}: no scores of runtimes: {reason(error)}")


def _scored(
    result: Result, run: PlannedRun, pairs: Sequence[Pair], calibrate: int, listener: Listener
) -> Result:
    """Pairs that have scores are not scored again; those that failed are.

    Nor is a score lost to a later failure.
    """
    scores = {row.pair: row for row in result.pairs if row.reason is None}
    kept = [
        pair
        for pair, row in scores.items()
        if row.calibration is None or row.calibration.asked == calibrate
    ]
    missing = [pair for pair in pairs if pair not in kept]
    if missing:
        changes = {name: getattr(run.config, name) for name in ("data", "workers", "on_bad_sample")}
        scoring = opened(
            run.folder, {**changes, "device": "cpu"}, Views(), listener=listener,
            role=result.config.split,
        )  # fmt: skip
        before, now = result.data.get("test", {}).get("fingerprint"), scoring.facts()["fingerprint"]
        if before != now:
            raise UserError(f"its {scoring.data.source.name} images are not those that it was "
                            "scored on: repeat the run with --overwrite")  # fmt: skip
        found = deployed(scoring, missing, calibrate).pairs

        def waiting() -> None:
            listener.message(f"{run.folder.parent}: another process is writing: waiting for it")

        with locked(run.folder.parent, waiting):  # it may have scored or timed the run meanwhile
            current = load(run.folder)
            if current is None or current.key != result.key or not _same_scores(current, result):
                raise UserError("it was trained anew meanwhile: repeat the command")
            scores = {row.pair: row for row in current.pairs if row.reason is None}
            found = [scores.get(row.pair, row) if row.reason else row for row in found]
            rows = {row.pair: row for row in [*current.pairs, *found]}
            result = current.model_copy(update={"pairs": [*rows.values()]})
            amend(run.folder, result)
    return result


def _same_scores(one: Result, other: Result) -> bool:
    return one.metrics == other.metrics and one.tasks == other.tasks
