"""Trained networks to and from a model hub: weights as safetensors, the run as JSON, a card.

Files from a hub are not trusted: only these are fetched, their sizes are bounded, nothing in them
is executed, and no path in them is read.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmark.experiment.config import RunConfig
from benchmark.experiment.plan import as_resolved, command_of
from benchmark.export.facts import network_facts
from benchmark.export.model_card import model_card
from benchmark.results.checkpoint import Checkpoint, checkpoint_file, open_checkpoint
from benchmark.results.checks import checked, parsed
from benchmark.results.layout import FILE
from benchmark.results.result import Result
from common.errors import UsageError, UserError, first_line
from common.extras import need
from common.files import write_atomic
from common.limits import RESULT, printable, read_bytes
from models.connectivity import Connectivity
from models.decoder_name import DecoderName

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LIBRARY = "sparsemask-bench"
Reply = TypeVar("Reply")


def check_repo(repo: str) -> None:
    """Raises UsageError unless ``repo`` is a USER/NAME that hubs allow."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", repo) or re.search(r"--|\.\.|\.git$", repo):
        raise UsageError(f"{repo}: not the name of a repository: write USER/NAME")


def package(checkpoint: Checkpoint, repo: str) -> dict[str, bytes]:
    """Files to upload for a trained network, by name, without paths of this machine."""
    stored = Result.model_validate_json((checkpoint.folder / FILE).read_bytes())
    result = without_paths(without_errors(stored))
    if checkpoint.which != result.config.score:
        raise UsageError(
            f"--checkpoint {checkpoint.path}: the scores are of the {result.config.score} "
            "weights: name the run's folder"
        )
    config = as_resolved(result.config)
    facts = network_facts(config, checkpoint.tasks, checkpoint.key, result)
    content = {"library": LIBRARY, **facts, "run": result.model_dump(mode="json")}
    wiring = wiring_of(result.config)
    return {
        **({} if wiring is None else {wiring[0]: wiring[1]}),
        WEIGHTS: checkpoint_file(checkpoint.folder, checkpoint.which).read_bytes(),
        CONFIG: (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(),
        CARD: model_card(result, facts, repo, wiring[0] if wiring is not None else "").encode(),
    }


def wiring_of(config: RunConfig) -> tuple[str, bytes] | None:
    """Name and content of the decoder's wiring file; None for decoders without one."""
    file = DecoderName.parse(config.decoder).file
    if file is None or config.wiring is None or file.suffix != ".json" or file.name == CONFIG:
        return None
    wiring = Connectivity.from_record(file.stem, config.wiring, config.backbone or "")
    return file.name, (json.dumps(wiring.to_json(), indent=1) + "\n").encode()


def without_paths(result: Result) -> Result:
    """The result without the paths of data, weights and wirings."""
    config = result.config
    decoder = str(DecoderName.parse(config.decoder).without_folder())
    changes: dict[str, Any] = {"data": None, "decoder": decoder}
    if config.weights is not None:
        changes["weights"] = Path(config.weights.name)
    if config.init is not None:
        changes["init"] = Path(config.init.name)
    clean = config.model_copy(update=changes)
    public = clean if config.data is None else clean.model_copy(update={"data": Path("DATA")})
    return result.model_copy(update={"config": clean, "command": command_of(public)})


def without_errors(result: Result) -> Result:
    """The result without texts that may hold paths; skipped samples become a count."""
    data = dict(result.data)
    for split, facts in data.items():
        if isinstance(facts, dict) and facts.get("skipped"):
            data[split] = {**facts, "skipped": [f"{len(facts['skipped'])} could not be read"]}
    speed = None if result.speed is None else result.speed.copy()
    if speed is not None:
        speed.pop("peak_memory_how", None)
    return result.model_copy(update={"data": data, "speed": speed})


def push(checkpoint: Checkpoint, repo: str, private: bool) -> str:
    """Upload a trained network to ``repo`` (USER/NAME), created if missing. Returns its URL.

    Raises UserError if the hub refuses or cannot be reached.
    """
    need("huggingface_hub", extra="hub", option="push-to-hub")
    from huggingface_hub import CommitOperationAdd, HfApi

    files = package(checkpoint, repo)
    api = HfApi(endpoint=_endpoint())
    url = _request(repo, lambda: str(api.create_repo(repo, private=private, exist_ok=True)))
    if private and not _request(repo, lambda: api.model_info(repo).private):
        raise UserError(
            f"{repo}: exists and is public: leave out --private, or make it private in its settings"
        )
    _request(
        repo,
        lambda: api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Upload run {checkpoint.key}",
        ),
    )
    return url


def fetch(repo: str, output: Path, revision: str | None = None) -> Checkpoint:
    """Download ``repo`` into ``output`` as the folder of a run, and open it.

    Raises UsageError if ``output`` is not empty, UserError if the hub refuses, cannot be reached,
    or holds no network of this project.
    """
    need("huggingface_hub", extra="hub", option="from-hub")
    from huggingface_hub import HfApi

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"-o {output}: is not empty: name a new folder")
    with tempfile.TemporaryDirectory() as cache:
        # first, so that all files are of one commit; a download also retries for half a minute
        commit = _request(
            repo, lambda: HfApi(endpoint=_endpoint()).model_info(repo, revision=revision).sha
        )
        files = {name: _download(repo, name, commit, cache) for name in (CONFIG, WEIGHTS)}
        result = parse(files[CONFIG], repo)
        folder = Path(cache) / "run"
        write_atomic(folder / FILE, result.model_dump_json(indent=1) + "\n")
        shutil.copy(files[WEIGHTS], checkpoint_file(folder, result.config.score))
        try:
            checkpoint = open_checkpoint(folder)
        except UserError as error:
            text = str(error).replace(str(folder), repo)
            raise UserError(f"{repo}: {text}") from error
        for file in folder.iterdir():
            write_atomic(output / file.name, file.read_bytes(), "-o")
    checkpoint.path = output
    return checkpoint


def parse(file: Path, repo: str) -> Result:
    """The run in a downloaded config.json.

    Raises UserError for other content, and for a decoder that would read files of this machine.
    """
    wrong = f"{repo}: its {CONFIG} was not written by push-to-hub"
    try:
        content = parsed(read_bytes(file, RESULT))
        if not isinstance(content, dict) or "run" not in content:
            raise ValueError("it holds no run")
        result = checked(content["run"])
    except ValueError as error:
        raise UserError(f"{wrong} ({first_line(error)})") from error
    config = result.config
    if config.wiring is None and DecoderName.parse(config.decoder).file:  # it would be read here
        raise UserError(f"{wrong}: decoder {printable(config.decoder)} without its wiring")
    return without_paths(result)


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _download(repo: str, name: str, revision: str | None, cache: str) -> Path:
    from huggingface_hub import hf_hub_download

    path = _request(
        repo,
        lambda: hf_hub_download(
            repo, name, revision=revision, cache_dir=cache, endpoint=_endpoint()
        ),
    )
    return Path(path)


def _request(repo: str, request: Callable[[], Reply]) -> Reply:
    """``request()``. Raises UserError with the hub's answer and the remedy if it fails."""
    from huggingface_hub import errors

    where = _endpoint() or "the hub"
    try:
        return request()
    except errors.EntryNotFoundError as error:
        if _status(error) is None:
            raise UserError(
                f"{where} cannot be reached: check the network, or HF_ENDPOINT"
            ) from error
        raise UserError(f"{repo}: not uploaded by push-to-hub ({first_line(error)})") from error
    except errors.OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE is set: unset it to reach the hub") from error
    except Exception as error:  # requests, httpx and the hub's client raise their own
        status = _status(error)
        if status in (401, 403):
            hint = "log in (hf auth login, or HF_TOKEN) with an account that may do this"
            # the hub also answers 401 for a repository that does not exist
            raise UserError(
                f"{repo}: {where} answers {status}: check the name, or {hint}"
            ) from error
        if status == 404:
            raise UserError(f"{repo}: {where} has no such repository: check the name") from error
        if status is not None:
            raise UserError(f"{repo}: {where} answers {status}: {first_line(error)}") from error
        raise UserError(
            f"{where} cannot be reached ({first_line(error)}): check the network, or HF_ENDPOINT"
        ) from error


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    return status if isinstance(status, int) else None
