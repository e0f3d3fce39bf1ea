"""What a check is: its status, its result, and how an answer is taken."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from common.errors import reason

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


def stops_runs(checks: Sequence[Check]) -> list[str]:
    """The names of what failed and ``run`` needs."""
    return [check.name for check in checks if check.needed and check.status == "fail"]
