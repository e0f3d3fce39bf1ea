"""The search for a wiring: train a network of all connections, then drop the weak ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmark.experiment import distributed
from benchmark.experiment.config import ResolvedSearch
from benchmark.experiment.environment import environment
from benchmark.experiment.network import check_device, check_sync, open_network
from benchmark.experiment.numerics import seed_everything
from benchmark.experiment.plan import command_of, make_tasks
from benchmark.experiment.readers import with_readers
from benchmark.results.layout import FOLDER, clear, clear_finished, hand_over, tidy
from benchmark.results.result import SplitFacts
from benchmark.training.batches import check_batch, check_norms
from benchmark.training.keeper import EVERY, Keeper
from benchmark.training.scalars import scalar_log
from benchmark.wiring.perturb import below
from benchmark.wiring.prune import prune
from benchmark.wiring.record import FRONT, SEARCH, WIRING, Search, SearchConnection, read_search
from benchmark.wiring.relaxed_training import Learned, RelaxedTraining
from common.errors import UsageError
from common.files import write_atomic
from common.progress import Listener, Silent
from datasets.pipeline import Resized, open_splits
from models.connected_decoder import WIDTH
from models.predictor import DensePredictor
from models.relaxed_decoder import RelaxedDecoder
from tasks.base import Task


def search(
    config: ResolvedSearch,
    output: Path,
    overwrite: bool = False,
    listener: Listener | None = None,
    tensorboard: bool = False,
    every: float = EVERY,
) -> Search:
    """Search a wiring for ``config`` and write ``found.json`` and ``search.json`` into ``output``.

    Losses go to metrics.jsonl and, with ``tensorboard``, to its files too. The state is saved
    ``every`` seconds: an interrupted search goes on from there, a finished one is not repeated.
    Returns the record in search.json. Raises UsageError at the start for options that do not fit
    and for a folder that holds another search, and at the end, after search.json is written, if the
    threshold leaves nothing.
    """
    listener = listener or Silent()
    check_device(config.device)
    check_sync(config)
    distributed.check_batch(config.batch_size)
    if distributed.asked() > 1 and (config.direct_drop or config.method == "perturbation"):
        option = "--direct-drop" if config.direct_drop else "--method perturbation"
        raise UsageError(f"{option}: is for one process, not for torchrun")
    settings = config.settings()
    finished = distributed.from_lead(_finished(output, settings, overwrite))
    if finished is not None:
        listener.message(f"{output / SEARCH}: already finished (--overwrite repeats it)")
        if distributed.lead():
            tidy(output / SEARCH)
        return finished
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with distributed.alone(output, listener) as late:
        other = _finished(output, settings, overwrite=False) if late else None
        finished = distributed.from_lead(other)
        if finished is not None:
            return finished
        if distributed.lead():
            clear_finished(output / SEARCH)
        return _search(config, output, listener, tensorboard, every)


def _search(
    config: ResolvedSearch, output: Path, listener: Listener, tensorboard: bool, every: float
) -> Search:
    tasks = make_tasks(config)
    relaxed = build_relaxed(config, tasks)
    decoder = relaxed.decoder
    assert isinstance(decoder, RelaxedDecoder)
    names = [task.target for task in tasks]
    splits = open_splits(config.dataset, config.data, names, config.image_size, config.limit)
    skips = config.on_bad_sample == "skip"
    data = Resized(splits["train"], config.image_size, names, targets=True, skips=skips)
    check_batch(config, decoder.info, len(data))
    check_norms(config, relaxed, len(data))
    settings = config.settings()
    facts: SplitFacts = {
        "images": len(data), "fingerprint": splits["train"].data.fingerprint(),
    }  # fmt: skip
    at_start = environment(config.device)
    identity = {"config": settings, "data": facts, "torch": torch.__version__}
    folder = output / FOLDER

    def attempt() -> tuple[Learned, float, list[int]]:
        keeper = Keeper(folder, identity, every, listener, config.device)
        keeper.watch({"train": data.bad})
        model = build_relaxed(config, tasks)
        if keeper.state is None and model.backbone.note:
            listener.message(model.backbone.note)
        with scalar_log(folder, tensorboard, keeper.log_position) as log:
            keeper.log = log
            training = RelaxedTraining(config, model, tasks, data)
            learned = training.fit(log.write, listener, keeper)
        return learned, keeper.seconds, keeper.resumed

    learned, seconds, resumed = with_readers(attempt, config.workers, listener)
    for bad in distributed.gathered(data.bad):
        data.bad.update(bad)
    if data.bad:
        facts = {**facts, "skipped": data.errors()}
    record = Search(
        format=1,
        method=config.method,
        task=config.task,
        dataset=config.dataset,
        backbone=config.backbone,
        strides=decoder.connectivity.strides,
        threshold=_threshold(config, learned),
        merge=config.merge,
        absorb=config.absorb,
        inputs=config.inputs if config.method == "maskconnect" else None,
        connections=[SearchConnection(stage=s, source=name) for s, name in decoder.connections],
        config=settings,
        command=f"{command_of(config, 'search')} --output {output}",
        environment=at_start,
        data=facts,
        **learned,
        seconds=seconds,
        resumed=resumed,
    )
    if config.device.startswith("cuda"):
        record.peak_memory_bytes = torch.cuda.max_memory_allocated(config.device)
    if not distributed.lead():
        return record
    hand_over(folder, output)
    try:
        wiring, record.found = prune(record)
    except UsageError:  # keep the weights, so that prune can take another threshold
        write_atomic(output / SEARCH, record.text())
        clear(folder)
        raise
    write_atomic(output / WIRING, json.dumps(wiring.to_json(), indent=1) + "\n")
    write_atomic(output / SEARCH, record.text())
    clear(folder)
    return record


def _threshold(config: ResolvedSearch, learned: Learned) -> float:
    """The configured threshold; of a perturbation the one that leaves the least loss."""
    if config.method != "perturbation":
        return config.threshold
    losses = learned["losses"]["without"]
    rounds = len(losses)
    best = min(range(rounds), key=lambda number: (losses[number], -number))
    return below(best, rounds)


def build_relaxed(config: ResolvedSearch, tasks: list[Task]) -> DensePredictor:
    """The Fully Dense Network with a head for each task, initialised from the seed, on the CPU."""
    seed_everything(config.seed)
    channels = {task.name: task.channels for task in tasks}
    return open_network(
        config,
        lambda backbone: RelaxedDecoder(
            backbone.features,
            width=config.width or WIDTH,
            gate="sampled" if config.method == "maskconnect" else "noisy",
            noise=config.noise,
            inputs=config.inputs,
            connection_bn=config.connection_bn,
            direct_drop=config.direct_drop,
        ),
        channels,
    )


def _finished(output: Path, settings: Mapping[str, Any], overwrite: bool) -> Search | None:
    """The record in ``output`` of a finished search with these settings, if there is one.

    Raises UsageError for another search, and for one whose threshold leaves nothing.
    """
    path = output / SEARCH
    if (front := output / FRONT).exists():
        raise UsageError(f"{front}: a front is there: name another --output")
    if overwrite or not path.exists():
        return None
    try:
        old = read_search(output)
        about = f"a search of {old.task} on {old.dataset} with {old.backbone}"
        if old.config == settings:
            prune(old)
            if (output / WIRING).exists():
                return old
            about = "that search, without its wiring: see prune,"
    except UsageError:
        about = "a file that is no search of this version"
    raise UsageError(f"{path}: {about} is there: name another --output, or repeat by --overwrite")
