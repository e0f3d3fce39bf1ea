"""Trained networks to and from a model hub: weights as safetensors, the run as JSON, a card.

What comes from a hub is not trusted: only these files are fetched, sizes are bounded, nothing in
them is executed or names a file of this machine.
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
Done = TypeVar("Done")


def check_repo(repo: str) -> None:
    """Raises UsageError unless ``repo`` is USER/NAME as hubs allow it."""
    part = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
    if not re.fullmatch(f"{part}/{part}", repo) or re.search(r"--|\.\.|\.git$", repo):
        raise UsageError(f"{repo}: no name of a repository: write USER/NAME")


def package(found: Checkpoint, repo: str) -> dict[str, bytes]:
    """The files of a trained network on a hub, by name; no path of this machine is in them."""
    stored = Result.model_validate_json((found.folder / FILE).read_bytes())
    result = without_paths(without_errors(stored))
    if found.which != result.config.score:
        raise UsageError(
            f"--checkpoint {found.path}: the scores are of the {result.config.score} weights: name "
            "the run's folder"
        )
    facts = network_facts(as_resolved(result.config), found.tasks, found.key, result)
    content = {"library": LIBRARY, **facts, "run": result.model_dump(mode="json")}
    wiring = wiring_of(result.config)
    return {
        **({} if wiring is None else {wiring[0]: wiring[1]}),
        WEIGHTS: checkpoint_file(found.folder, found.which).read_bytes(),
        CONFIG: (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode(),
        CARD: model_card(result, facts, repo, wiring[0] if wiring is not None else "").encode(),
    }


def wiring_of(config: RunConfig) -> tuple[str, bytes] | None:
    """Name and content of the file that the decoder is wired by; None for other decoders."""
    file = DecoderName.parse(config.decoder).file
    if file is None or config.wiring is None or file.suffix != ".json" or file.name == CONFIG:
        return None
    wiring = Connectivity.recorded(file.stem, config.wiring, config.backbone or "")
    return file.name, (json.dumps(wiring.to_json(), indent=1) + "\n").encode()


def without_paths(result: Result) -> Result:
    """The result without the places of data, weights and wirings on this machine."""
    config = result.config
    decoder = str(DecoderName.parse(config.decoder).without_folder())
    changes: dict[str, Any] = {"data": None, "decoder": decoder}
    if config.weights is not None:
        changes["weights"] = Path(config.weights.name)
    clean = config.model_copy(update=changes)
    shown = clean if config.data is None else clean.model_copy(update={"data": Path("DATA")})
    return result.model_copy(update={"config": clean, "command": command_of(shown)})


def without_errors(result: Result) -> Result:
    """The result without texts that may name places: of skipped samples their number stays."""
    data = dict(result.data)
    for split, facts in data.items():
        if isinstance(facts, dict) and facts.get("skipped"):
            data[split] = {**facts, "skipped": [f"{len(facts['skipped'])} could not be read"]}
    speed = None if result.speed is None else result.speed.copy()
    if speed is not None:
        speed.pop("peak_memory_how", None)
    return result.model_copy(update={"data": data, "speed": speed})


def push(found: Checkpoint, repo: str, private: bool) -> str:
    """Upload a trained network to ``repo`` (USER/NAME), which is made if need be. Returns its URL.

    Raises UserError for what the hub refuses, or that cannot be reached.
    """
    need("huggingface_hub", extra="hub", option="push-to-hub")
    from huggingface_hub import CommitOperationAdd, HfApi

    files = package(found, repo)
    api = HfApi(endpoint=_endpoint())
    url = _asked(repo, lambda: str(api.create_repo(repo, private=private, exist_ok=True)))
    if private and not _asked(repo, lambda: api.model_info(repo).private):
        raise UserError(
            f"{repo}: is there already, for all to see: leave out --private, or make it private in "
            "its settings"
        )
    _asked(
        repo,
        lambda: api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Upload run {found.key}",
        ),
    )
    return url


def fetch(repo: str, output: Path, revision: str | None = None) -> Checkpoint:
    """Download ``repo`` into ``output`` as the folder of a run, and open it.

    Raises UsageError for a folder that holds something, UserError for what the hub refuses, that
    cannot be reached, or that is no network of this project.
    """
    need("huggingface_hub", extra="hub", option="from-hub")
    from huggingface_hub import HfApi

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"-o {output}: holds something: name a new folder")
    with tempfile.TemporaryDirectory() as cache:
        # asked first, for one commit's files, and because a download tries for half a minute
        commit = _asked(
            repo, lambda: HfApi(endpoint=_endpoint()).model_info(repo, revision=revision).sha
        )
        files = {name: _download(repo, name, commit, cache) for name in (CONFIG, WEIGHTS)}
        result = parse(files[CONFIG], repo)
        folder = Path(cache) / "run"
        write_atomic(folder / FILE, result.model_dump_json(indent=1) + "\n")
        shutil.copy(files[WEIGHTS], checkpoint_file(folder, result.config.score))
        try:
            found = open_checkpoint(folder)
        except UserError as error:
            text = str(error).replace(str(folder), repo)
            raise UserError(f"{repo}: {text}") from error
        for file in folder.iterdir():
            write_atomic(output / file.name, file.read_bytes(), "-o")
    found.path = output
    return found


def parse(file: Path, repo: str) -> Result:
    """The run that a downloaded config.json holds.

    Raises UserError for other content, and for what would read files of this machine.
    """
    wrong = f"{repo}: its {CONFIG} is none of push-to-hub"
    try:
        content = parsed(read_bytes(file, RESULT))
        if not isinstance(content, dict) or "run" not in content:
            raise ValueError("no run in it")
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

    found = _asked(
        repo,
        lambda: hf_hub_download(
            repo, name, revision=revision, cache_dir=cache, endpoint=_endpoint()
        ),
    )
    return Path(found)


def _asked(repo: str, request: Callable[[], Done]) -> Done:
    """``request`` of the hub. Raises UserError that says what the hub answered, and the remedy."""
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
    except Exception as error:  # of requests, httpx and the hub's own
        status = _status(error)
        if status in (401, 403):
            hint = "log in (hf auth login, or HF_TOKEN) with an account that may do this"
            # the hub answers 401 for what does not exist, too
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
