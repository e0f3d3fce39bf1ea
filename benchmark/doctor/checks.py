"""A check: its question, its outcome, and how it is run with a time limit."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from common.errors import reason

Status = Literal["ok", "warn", "fail"]


class Outcome(NamedTuple):
    """Outcome of a check. seen: one line. advice: one line, or empty where there is none."""

    status: Status
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Check:
    """A check with its outcome. needed: ``run`` cannot work if it fails. seconds: of the check."""

    name: str
    status: Status
    seen: str
    advice: str
    needed: bool
    seconds: float


class Question(NamedTuple):
    """A check that is still to run. limit: seconds that it may take."""

    name: str
    ask: Callable[[], Outcome]
    needed: bool = False
    limit: float = 15.0


def answer(question: Question) -> Check:
    """Run a check. One that raises or does not end in time is a ``fail`` with its reason."""
    answers: list[Outcome | KeyboardInterrupt] = []

    def ask() -> None:
        try:
            answers.append(question.ask())
        except (Exception, SystemExit) as error:  # a broken installation raises almost anything
            advice = "mend what this names, and ask again"
            answers.append(Outcome("fail", reason_of(error), advice))
        except KeyboardInterrupt as error:
            answers.append(error)

    start = time.perf_counter()
    # only a thread can be left behind when a file system does not answer
    thread = threading.Thread(target=ask, name=question.name, daemon=True)
    thread.start()
    thread.join(question.limit)
    late = Outcome("fail", f"no answer within {question.limit:g} s", "what it asks for hangs")
    outcome = answers[0] if answers else late
    if isinstance(outcome, KeyboardInterrupt):
        raise outcome
    seconds = round(time.perf_counter() - start, 3)
    return Check(question.name, *outcome, question.needed, seconds)


def reason_of(error: BaseException) -> str:
    """The reason of a failure, in one line."""
    if isinstance(error, Exception):
        return reason(error)
    return f"{type(error).__name__}: {error}"


def stops_runs(checks: Sequence[Check]) -> list[str]:
    """Names of the failed checks that ``run`` needs."""
    return [check.name for check in checks if check.needed and check.status == "fail"]
