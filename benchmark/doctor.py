"""What this machine and installation can do: one check after another, each with its advice."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from common.errors import reason
from common.progress import Listener, Silent

if TYPE_CHECKING:
    from benchmark.doctor_software import Probes

Status = Literal["ok", "warn", "fail"]


class Found(NamedTuple):
    """What a check saw. advice: a line, empty where there is nothing to say."""

    status: Status
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """One finding. needed: ``run`` cannot do without. seconds: what the check took."""

    name: str
    status: Status
    seen: str
    advice: str
    needed: bool
    seconds: float


class Question(NamedTuple):
    """A check to come. limit: seconds that it may take."""

    name: str
    ask: Callable[[], Found]
    needed: bool = False
    limit: float = 15.0


def answer(question: Question) -> Check:
    """The finding; a check that raises or does not end in time is a ``fail`` with its reason."""
    answers: list[Found | KeyboardInterrupt] = []

    def ask() -> None:
        try:
            answers.append(question.ask())
        except (Exception, SystemExit) as error:  # of a broken installation almost anything
            answers.append(Found("fail", reason_of(error), "mend what this names, and ask again"))
        except KeyboardInterrupt as error:
            answers.append(error)

    start = time.perf_counter()
    # a thread, for nothing else leaves a file system that does not answer
    thread = threading.Thread(target=ask, name=question.name, daemon=True)
    thread.start()
    thread.join(question.limit)
    late = Found("fail", f"no answer within {question.limit:g} s", "what it asks for hangs")
    found = answers[0] if answers else late
    if isinstance(found, KeyboardInterrupt):
        raise found
    seconds = round(time.perf_counter() - start, 3)
    return Check(question.name, *found, question.needed, seconds)


def reason_of(error: BaseException) -> str:
    """Why something failed, in a line."""
    if isinstance(error, Exception):
        return reason(error)
    return f"{type(error).__name__}: {error}"


def questions(results: Path, data: Path | None, ray: bool, probes: "Probes") -> list[Question]:
    """All checks, in order. probes: what runs in other processes meanwhile."""
    from benchmark import doctor_machine as machine
    from benchmark import doctor_software as software

    asked = [
        Question("load", machine.load),  # first: what follows is load itself
        Question("memory", machine.memory),
        Question("shared memory", machine.shared_memory),
        Question("results folder", lambda: machine.results_folder(results), needed=True),
        Question("temporary folder", machine.temporary_folder),
        Question("Python", software.python, needed=True),
        Question("packages", software.packages, needed=True),
        *(Question(f"[{name}]", partial(software.extra, name)) for name in software.extras()),
        Question("imports", software.imports, needed=True, limit=60),
        Question("processor", machine.processor, limit=30),
        Question("CUDA", machine.cuda, limit=60),
        Question("fresh processes", machine.fresh_processes),
        Question("torch.compile", lambda: software.compiles(probes), limit=60),
        Question("ONNX", lambda: software.exports(probes), limit=60),
        # timed: last, when nothing else of ours runs
        Question("mixed precision", software.mixed_precision, limit=30),
        Question("same bits", software.same_bits, limit=30),
        Question("self-test", software.self_test, needed=True, limit=90),
    ]
    if data is not None:
        asked.insert(4, Question("data", lambda: machine.data(data), needed=True))
    if ray:
        asked.insert(-3, Question("Ray", lambda: software.starts_ray(probes), limit=90))
    return asked


def examine(
    results: Path, data: Path | None = None, ray: bool = False, listener: Listener | None = None
) -> list[Check]:
    """All findings, in order. Never raises for what it finds; writes nothing that stays.

    results: folder that runs would be written to. data: a data set's folder or packed file, if it
    is to be looked at. ray: start Ray too, which takes long.
    """
    from benchmark.doctor_software import Probes

    listener = listener or Silent()
    found = []
    with Probes(["compile", "onnx", *(["ray"] if ray else [])]) as probes:
        asked = questions(results, data, ray, probes)
        listener.begin("doctor", len(asked))
        for question in asked:
            found.append(answer(question))
            listener.step(question.name)
    return found


def stops_runs(checks: Sequence[Check]) -> list[str]:
    """The names of what failed and ``run`` needs."""
    return [check.name for check in checks if check.needed and check.status == "fail"]
