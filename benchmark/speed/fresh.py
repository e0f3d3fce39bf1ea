"""Call functions in fresh processes, whose memory and state nothing has touched.

A server imports the module of a function, computes nothing, and forks for every call: a fork costs
milliseconds where starting Python and importing torch costs seconds. The server starts with the
first call and ends with the ``with`` block.
"""

import importlib
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from common.closing import Closing
from common.errors import UserError, reason
from common.paths import ROOT


class FreshProcess(Closing):
    """Calls functions of this project's modules, one after another, each in its own process.

    environment: variables that these processes have besides those of this one.
    """

    def __init__(self, **environment: str) -> None:
        self.environment = environment
        self.server: subprocess.Popen[str] | None = None

    def close(self) -> None:
        if self.server is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGKILL)
            self.server.communicate()
            self.server = None

    def call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        """Call ``function(**arguments)`` in a fresh process and return its result.

        function: one that its module holds under its name. Arguments and result are what JSON can
        hold. Raises UserError with the function's error, or if the process is killed, as a system
        short of memory does.
        """
        if self.server is None:
            self.server = _start(self.environment)
        job = {"module": function.__module__, "name": function.__name__, "arguments": arguments}
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        try:
            self.server.stdin.write(json.dumps(job) + "\n")
            self.server.stdin.flush()
            answer = self.server.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            self.close()
            raise UserError("a fresh process could not be started")
        outcome = json.loads(answer)
        if "error" in outcome:
            raise UserError(outcome["error"])
        return outcome["result"]


def _start(environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    if not hasattr(os, "fork"):
        raise UserError("this system has no fork: fresh processes cannot be started")
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark.speed.fresh"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)},
        start_new_session=True,  # so that one signal ends it with its children
    )


def _serve() -> None:
    """Answer each line of standard input, a call, with one line: its result or its error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that a library's print is not read as an answer
    for line in sys.stdin:
        job = json.loads(line)
        module = importlib.import_module(job["module"])
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(_outcome(getattr(module, job["name"]), job["arguments"]), pipe)
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            # nothing is written to standard input before the answer: it is its end
            if sys.stdin.fileno() in wait([read, sys.stdin.fileno()]):
                os.kill(child, signal.SIGKILL)
                return
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        if not text:
            text = json.dumps({"error": _ended(status)})
        answers.write(text + "\n")
        answers.flush()


def _outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        return {"result": function(**arguments)}
    except Exception as error:  # a network may raise almost anything for an input it refuses
        return {"error": reason(error)}


def _ended(status: int) -> str:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"its process was ended by {name}: memory may have run out"
    return f"its process ended with {os.waitstatus_to_exitcode(status)}"


if __name__ == "__main__":
    _serve()
