"""A search for a front of wirings: candidates, trained briefly and kept by successive halving."""

import itertools
import json
import math
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmark.experiment.config import (
    CANDIDATES,
    FrontConfig,
    NetworkConfig,
    SearchConfig,
    make_config,
    option_name,
)
from benchmark.experiment.environment import Environment, environment
from benchmark.experiment.network import check_device
from benchmark.experiment.plan import command_of, plan, planned, resolve, targets_of
from benchmark.results.result import SplitFacts
from benchmark.results.store import collect
from benchmark.training.keeper import EVERY
from benchmark.training.learner import NotFinite
from benchmark.wiring import search as searching
from benchmark.wiring.front.candidates import (
    Candidate,
    chosen,
    from_chains,
    from_perturbation,
    from_presets,
    from_search,
    from_subsets,
    random_candidates,
)
from benchmark.wiring.front.outcome import (
    control_of,
    hypervolume_of,
    preset_of,
    tried_of,
    wirings_of,
)
from benchmark.wiring.front.race import PLAN, Pace, Protocol, Race, Trainer
from benchmark.wiring.front.record import Front, read_front
from benchmark.wiring.front.selection import ETA, sizes
from benchmark.wiring.record import FRONT, SEARCH, WIRING, read_search
from common.errors import UsageError
from common.files import check_writable, locked, write_atomic
from common.progress import Listener, Silent
from datasets.pipeline import open_splits
from models.backbones import create_without_weights
from models.connectivity import Connectivity

SEARCHES: Mapping[str, Mapping[str, Any]] = {
    "gradient": {"method": "sparsemask"},
    "gradient-drop": {"method": "sparsemask", "direct_drop": 0.5},
    "perturbation": {"method": "perturbation", "direct_drop": 0.5},
}
"""Sources of candidates besides the presets."""
COURSE: Mapping[str, Any] = {"lambda_": 1.0, "ramp": (0.15, 1.0)}
"""λ grows all along a gradient search, which so passes ever smaller wirings."""
SHARE, FEWEST, MOST = 0.15, 40, 300
"""Steps of each of those searches: a share of a full training's, within bounds."""
MOST_CANDIDATES = 300
"""With a time to spend."""
USED = 0.9
"""Share of the time left that trainings are planned for: scoring takes some, and costs."""
CHILDREN = (0.125, 0.25)
"""Share of the candidates in the first and in the second generation of children."""


class FrontSearch:
    """One search for a front in the folder ``output``."""

    def __init__(
        self, config: FrontConfig, output: Path, trainer: Trainer, listener: Listener, every: float
    ) -> None:
        self.config, self.output, self.listener, self.every = config, output, listener, every
        own = set(NetworkConfig.model_fields) & config.model_fields_set | {"task", "dataset"}
        values = {name: getattr(config, name) for name in own}
        if config.device == "cpu" and config.threads is None:
            values["threads"] = 1  # the trainings of a rung share the cores
        length = {"steps": config.steps, "epochs": config.epochs}
        length = {name: value for name, value in length.items() if value is not None}
        (full,) = plan({**values, **length}, {"decoder": ["encoder-sum"]})
        check_device(full.device)
        splits = open_splits(
            full.dataset, full.data, targets_of(full.task), full.image_size, full.limit
        )
        images = len(splits["train"])
        each = max(images // min(full.batch_size, images), 1)
        steps = full.steps or full.epochs * each
        self.data: dict[str, SplitFacts] = {
            name: {"images": len(splits[name]), "fingerprint": splits[name].data.fingerprint()}
            for name in ("train", "val")
        }
        # a control may be added to a finished front
        stated = set(config.model_fields_set) - {"control"}
        own_settings = config.model_dump(mode="json", include=stated)
        run = full.model_dump(mode="json", exclude={"decoder", "decoder_revision"})
        self.settings = {"front": own_settings, "run": run, "data": self.data}
        self.protocol = Protocol(
            values=values,
            full=full,
            steps=steps,
            rungs=[max(1, round(share * steps)) for share in config.rungs],
            cost=config.cost or ("macs" if config.budget_ms is None else "latency"),
            budget_ms=config.budget_ms,
            budget_macs=config.budget_macs,
            settings=self.settings,
            trainer=trainer,
            listener=listener,
        )
        for name in SEARCHES:  # an option of theirs that is wrong is told at once
            self._search_config(name, {})
        self.least = len(self.protocol.rungs) + 1
        if config.candidates is not None and config.candidates < self.least:
            few = f"{self.least - 1} rungs need {self.least} or more"
            raise UsageError(f"--candidates {config.candidates}: {few}")

    def run(self, overwrite: bool) -> Front:
        """The front, which is written unless it is there."""
        if not overwrite and (old := self._finished()) is not None:
            return old
        check_writable(self.output)

        def waiting() -> None:
            self.listener.message(f"{self.output}: another process searches there: waiting for it")

        with locked(self.output, waiting):
            if overwrite:
                self._remove()
            return self._finished() or self._run()

    def _finished(self) -> Front | None:
        path = self.output / FRONT
        if not path.exists():
            if (one := self.output / SEARCH).exists():
                raise UsageError(
                    f"{one}: a search of one training is there: name another --output, or replace "
                    "it by --overwrite"
                )
            return None
        old = read_front(self.output)
        if old.config != self.settings:
            raise UsageError(
                f"{path}: a front of {old.task} on {old.dataset} with {old.backbone} and other "
                "settings is there: name another --output, or repeat by --overwrite"
            )
        if old.control is None and self.config.control != "none":
            return None
        self.listener.message(f"{path}: already finished (--overwrite repeats it)")
        return old

    def _remove(self) -> None:
        """Remove an earlier search, and no folder that is not one's."""
        ours = any((self.output / name).exists() for name in (FRONT, PLAN))
        for name in ("searches", "candidates", "rungs", "control", "front") if ours else ():
            shutil.rmtree(self.output / name, ignore_errors=True)
        for name in (FRONT, PLAN, WIRING, SEARCH):
            (self.output / name).unlink(missing_ok=True)

    def _run(self) -> Front:
        facts = environment(self.protocol.full.device)
        config, pace, half = self.config, None, 0.0
        if config.minutes is not None:
            half = 60 * config.minutes / (1 if config.control == "none" else 2)
            spent = self._search_seconds() + self._training_seconds(self.output)
            pace = Pace(time.monotonic() + half - spent)
        race = Race(self.protocol, self.output, pace)
        race.run(lambda: self._first(pace), config.seed)
        front = self._finish(race, None, facts)  # whatever becomes of a control
        if config.control == "random":
            folder = self.output / "control"
            spent = self._training_seconds(folder)
            again = None
            if pace is not None:  # the front may have taken more than its half, without a control
                again = Pace(max(pace.deadline, time.monotonic()) + half - spent)
            control = Race(self.protocol, folder, again)
            control.run(lambda: (self._random(race), []), config.seed)
            front = self._finish(race, control, facts)
        return front

    def _first(self, pace: Pace | None) -> tuple[list[Candidate], list[int]]:
        """Presets, and wirings that short searches found; and how many children there will be."""
        full = self.protocol.full
        body = create_without_weights(full.backbone, full.backbone_args, full.channels)
        presets = from_presets([f.undilated for f in body.features])
        crop = self._crop(body.fixed_size)
        found = [self._found(name, crop) for name in SEARCHES]
        count = self.config.candidates or CANDIDATES
        if pace is not None:
            count = self._within(pace)
        strides = [f.undilated for f in body.features]
        found += [
            make(strides, self.config.seed, 3 * count) for make in (from_subsets, from_chains)
        ]
        born = [max(1, round(share * count)) for share in CHILDREN]
        return chosen(presets, found, max(count - sum(born), 1)), born

    def _within(self, pace: Pace) -> int:
        """The number of candidates for which ``pace`` leaves time."""
        protocol = self.protocol
        runs = []
        for steps in protocol.rungs:  # the first seed's estimate holds what occurs once
            values = {**protocol.values, "steps": steps, "split": "val"}
            axes: dict[str, list[Any]] = {"decoder": ["unet-connectivity"], "seed": [0, 1]}
            runs += planned(plan(values, axes), self.output / "rungs")
        seconds = protocol.trainer.estimate(runs)[1::2]
        each = sum(spent / ETA**rung for rung, spent in enumerate(seconds))
        if not each:
            raise UsageError("--minutes: how long a training takes is unknown: give --candidates")
        count = int(pace.left * protocol.trainer.lanes * USED / each)
        if count < self.least:
            more = math.ceil(self.least * each / (protocol.trainer.lanes * USED * 60))
            raise UsageError(
                f"--minutes {self.config.minutes:g}: leaves time for {count} wirings, and "
                f"{self.least - 1} rungs need {self.least}: give some {more} minutes more"
            )
        return min(count, MOST_CANDIDATES)

    def _random(self, race: Race) -> list[Candidate]:
        """Random wirings like those found, whose trainings take as many steps as the search."""
        full = self.protocol.full
        body = create_without_weights(full.backbone, full.backbone_args, full.channels)
        like = [c.wiring for c in race.candidates if c.origin["source"] != "preset"]
        rungs = self.protocol.rungs
        spent = len(SEARCHES) * self._iterations()
        spent += sum(len(some) * steps for some, steps in zip(race.scores, rungs, strict=True))

        def steps_of(count: int) -> int:
            places = sizes(count, len(rungs))
            return sum(some * steps for some, steps in zip(places, rungs, strict=True))

        count = max(self.least, next(n for n in itertools.count(1) if steps_of(n + 1) > spent))
        return random_candidates(
            like or [c.wiring for c in race.candidates],
            *(body.features, full.image_size, self.config.seed, count),
        )

    def _search_seconds(self) -> float:
        """Seconds that the searches took, those of an interrupted process too."""
        folders = [self.output / "searches" / name for name in SEARCHES]
        return sum(read_search(f).seconds for f in folders if (f / SEARCH).exists())

    def _training_seconds(self, folder: Path) -> float:
        """Seconds that an interrupted process has spent on trainings of the race in ``folder``."""
        done = [result for rung in (folder / "rungs").glob("*") for result in collect(rung)[0]]
        return sum(r.seconds.get("total", 0.0) for r in done) / self.protocol.trainer.lanes

    def _iterations(self) -> int:
        """Steps of each of ``SEARCHES``."""
        usual = min(max(round(SHARE * self.protocol.steps), FEWEST), MOST)
        values = {"iterations": self.config.searches.get("iterations", usual)}
        return make_config(values, SearchConfig).iterations

    def _search_config(self, name: str, crop: Mapping[str, Any]) -> SearchConfig:
        values = {
            **self.protocol.values,
            "threads": self.config.threads,
            **COURSE,
            "iterations": self._iterations(),
            **crop,
            **self.config.searches,
            **SEARCHES[name],
        }
        return make_config(values, SearchConfig)

    def _found(self, name: str, crop: Mapping[str, Any]) -> list[Candidate]:
        """The wirings of one of ``SEARCHES``, which is done unless it is finished."""
        config = resolve(self._search_config(name, crop))
        folder = self.output / "searches" / name
        self.listener.message(f"search: {name}, {config.iterations} steps")
        try:
            record = searching.search(config, folder, listener=self.listener, every=self.every)
        except (UsageError, NotFinite) as error:
            if not (folder / SEARCH).exists():
                self.listener.message(f"{name}: left out: {error}")
                return []
            record = read_search(folder)  # its end keeps nothing; there are wirings on its way
        found = from_perturbation if config.method == "perturbation" else from_search
        return found(name, record)

    def _crop(self, fixed: tuple[int, int] | None) -> dict[str, Any]:
        """Crops of half the size, for a quarter of the time, where the backbone takes any size."""
        full = self.protocol.full
        if full.crop_size is not None or fixed is not None:
            return {}
        halves = (max(64, 32 * round(side / 64)) for side in full.image_size)
        return {"crop_size": tuple(map(min, halves, full.image_size))}

    def _finish(self, race: Race, control: Race | None, facts: Environment) -> Front:
        config, protocol, last = self.config, self.protocol, race.scores[-1]
        standing = race.standing()
        wirings = wirings_of(race, standing, "front")
        for old in (self.output / "front").glob("*.json"):
            old.unlink()
        for wiring in wirings:
            target = self.output / wiring.file
            content = (self.output / "candidates" / target.name).read_bytes()
            write_atomic(target, content, "--output")
        first = next(iter(last.values()))
        record = Front(
            format=1,
            metric=first.metric,
            higher_is_better=first.higher_is_better,
            cost=protocol.cost,
            found=f"front/{standing.found}.json",
            wirings=wirings,
            preset=preset_of(race, standing),
            control=None if control is None else control_of(race, control, config.seed),
            tried=tried_of(race),
            rungs=list(protocol.rungs),
            steps=protocol.steps,
            hypervolume=hypervolume_of(race, race.costs["fully-dense"]["macs"]),
            task=config.task,
            dataset=config.dataset,
            backbone=protocol.full.backbone,
            config=self.settings,
            command=f"{command_of_front(config)} --output {self.output}",
            environment=facts,
            data=self.data,
            seconds={"searches": self._search_seconds(), "rungs": race.seconds},
        )
        found = Connectivity.load(self.output / record.found)
        text = json.dumps(found.to_json(), indent=1) + "\n"
        write_atomic(self.output / WIRING, text, "--output")
        write_atomic(self.output / FRONT, record.text(), "--output")
        return record


def command_of_front(config: FrontConfig) -> str:
    """The command that repeats a search for a front."""
    words = [command_of(config, "search"), "--method front"]
    for name, value in config.searches.items():
        if isinstance(value, bool):
            words.append(option_name(name) if value else f"--no-{option_name(name)[2:]}")
        else:
            words.append(f"{option_name(name)} {shlex.quote(str(value))}")
    return " ".join(words)


def search_front(
    config: FrontConfig,
    output: Path,
    trainer: Trainer,
    overwrite: bool = False,
    listener: Listener | None = None,
    every: float = EVERY,
) -> Front:
    """Search a front of wirings for ``config`` and write it into ``output``.

    ``front.json`` holds the record, ``front/`` the wirings of the last rung, ``found.json`` the
    best one or, of those that cannot be told from it, the cheapest. An interrupted search goes on
    where it was. Raises UsageError for options that do not fit and for a folder that holds another
    search.
    """
    return FrontSearch(config, output, trainer, listener or Silent(), every).run(overwrite)
