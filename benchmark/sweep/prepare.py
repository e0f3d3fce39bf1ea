"""Preparation of a sweep: stored results, pending runs, data that can be opened."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmark.experiment.plan import PlannedRun, info_of, targets_of
from benchmark.results.result import Result
from benchmark.results.store import load
from benchmark.run.data import shared_data
from benchmark.sweep.file import Cache, unset_variables
from common.errors import DataError
from datasets.base import DATASETS
from datasets.pipeline import Split, open_splits

Opened = dict[tuple[Any, ...], dict[str, Split]]
Unusable = dict[tuple[Any, ...], Exception]


def stored(runs: Sequence[PlannedRun]) -> Iterator[tuple[str, Result]]:
    """(Key, stored result) of ``runs``, finished or failed."""
    for run in runs:
        result = load(run.folder)
        if result is not None:
            yield run.key, result


def to_do(runs: Sequence[PlannedRun], states: Mapping[str, str], cache: Cache) -> list[PlannedRun]:
    """The runs that are pending under ``cache``. states: of stored results, by key.

    only-missing: runs without a finished result. always: none. never: all.
    """
    if cache == "always":
        return []
    done = {key for key, state in states.items() if state == "finished" and cache != "never"}
    return [run for run in runs if run.key not in done]


def open_data(runs: Sequence[PlannedRun]) -> tuple[Opened, Unusable]:
    """Opened, unread splits for ``runs``, and the errors of data that cannot be opened."""
    opened: Opened = {}
    unusable: Unusable = {}
    for run in runs:
        config, shared = run.config, shared_data(run.config)
        if shared in opened or shared in unusable:
            continue
        try:
            for name in unset_variables(config.data):
                raise DataError(
                    f"data of {config.dataset}: the environment variable {name} is not set: set "
                    f"it, or give --data {config.dataset}=PATH"
                )
            if config.data is None and not DATASETS.get(config.dataset).info.built_in:
                raise DataError(
                    f"{config.dataset}: where are its files? --data {config.dataset}=PATH, or "
                    f"data: {{{config.dataset}: PATH}} in the file"
                )
            opened[shared] = open_splits(
                config.dataset,
                config.data,
                targets_of(config.task),
                config.image_size,
                config.limit,
            )
        except Exception as error:  # an error of one data set does not stop the others
            unusable[shared] = error
    return opened, unusable


def outdated(runs: Sequence[PlannedRun], results: Mapping[str, Result]) -> Iterator[str]:
    """A line for each finished run on files of the user's own that have changed since.

    results: by key. The key of such a run holds where its files lie, and not what they are.
    """
    kept = [run for run in runs if run.key in results and info_of(run.config).generic]
    opened, _ = open_data(kept)
    for run in kept:
        facts, splits = results[run.key].data, opened.get(shared_data(run.config), {})
        now = {name: split.data.fingerprint() for name, split in splits.items()}
        if run.config.split == "val" and "val" in now:
            now["test"] = now["val"]
        before = {name: facts.get(name, {}).get("fingerprint") for name in now}
        if changed := [n for n in now if before[n] not in (None, now[n])]:
            names = ", ".join(changed)
            how = "run --overwrite or sweep --cache never repeats it"
            yield f"{run.key}: its data have changed since it ran ({names}): {how}"
