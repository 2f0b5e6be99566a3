"""The ``alexnet`` command: finds the subcommand, runs it, and turns errors into one line.

Exit codes: 0 done, 1 done with some inputs refused, 2 wrong use, 3 failed, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError

from alexnet import __version__
from alexnet.cli.ablate import ablate
from alexnet.cli.calibrate import calibrate
from alexnet.cli.compare import compare
from alexnet.cli.demo import demo
from alexnet.cli.doctor import doctor
from alexnet.cli.evaluate import evaluate
from alexnet.cli.finetune import finetune
from alexnet.cli.models import models
from alexnet.cli.options import EVERYWHERE, STANDARD_INPUT, WHAT_THERE_IS
from alexnet.cli.plan import plan
from alexnet.cli.predict import predict
from alexnet.cli.prepare import prepare
from alexnet.cli.summary import summary
from alexnet.cli.train import train
from alexnet.cli.weights import weights
from alexnet.errors import AlexnetError, FailedError, UsageError
from alexnet.torchrun import is_main, world_size

HELP = """
AlexNet and LeNet: the exact networks, and a folder of photos made into a classifier.

New here? Two minutes, nothing downloaded; then your own photos, one folder a class:

    alexnet demo
    alexnet finetune photos/ -o runs/photos
    alexnet predict runs/photos new.jpg

`alexnet COMMAND --help` tells more of each.
"""

EPILOGUE = """
Exit codes: 0 done, 1 done with some inputs refused, 2 wrong use, 3 failed, 130 interrupted.
"""

_GROUPS = (
    (Group("Start here", sort_key=1), (demo, doctor, compare, ablate)),
    (
        Group("Your own pictures", sort_key=2),
        (finetune, train, evaluate, calibrate, predict, prepare),
    ),
    (WHAT_THERE_IS, (models, summary, plan)),
)

app = App(
    name="alexnet",
    help=HELP,
    help_epilogue=EPILOGUE,
    help_format="markdown",
    version=__version__,
    group_parameters=Group("Options", sort_key=4),
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
    exit_on_error=False,
    print_error=False,
    verbose=False,
    result_action="return_value",
)
for _group, _commands in _GROUPS:
    for _command in _commands:
        app.command(_command, group=_group)
app.command(weights)
for _flag in ("--help", "--version"):
    app[_flag].group = (EVERYWHERE,)

_RESUMABLE = ("train", "finetune")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: what follows the program's name; ``sys.argv``'s by default.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not is_main():  # of the processes that torchrun started, one prints
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    _prepare_streams(debug="--debug" in words)
    try:
        code = app([STANDARD_INPUT if word == "-" else word for word in words])
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _interrupted(words)
    except BrokenPipeError:
        return _reader_left()
    except (CycloptsError, Exception) as error:
        return _failed(error, words)
    return code or 0


def _prepare_streams(debug: bool) -> None:
    """Logs to standard error; libraries' warnings only for who asked for them."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING, force=True)
    logging.getLogger("alexnet").setLevel(logging.DEBUG if debug else logging.INFO)
    if not sys.warnoptions and not debug:
        warnings.simplefilter("ignore")
    for stream in (sys.stdout, sys.stderr):
        # A file name that is not UTF-8 is printed escaped instead of stopping the command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # as Python has names of files


def _failed(error: BaseException, words: list[str]) -> int:
    """Print one line (or, with --debug, the traceback too) and return the exit code."""
    if "--debug" in words:
        traceback.print_exception(error)
    text, code = _explain(error, words)
    if getattr(error, "told", False) or (isinstance(error, CycloptsError) and not is_main()):
        return code
    print(f"alexnet: {' '.join(text.split())}", file=sys.stderr)  # noqa: T201
    return code


def _explain(error: BaseException, words: list[str]) -> tuple[str, int]:
    """What went wrong, in one line, and the exit code."""
    if isinstance(error, CycloptsError):
        return _explain_use(error, words), UsageError.exit_code
    if isinstance(error, AlexnetError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        hint = "out of memory: halve --set training.batch_size (or --batch-size) and try again"
        return hint, FailedError.exit_code
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename or ''}", FailedError.exit_code
    hint = "" if "--debug" in words else " (a mistake of ours; --debug shows where)"
    return f"{type(error).__name__}: {error}{hint}", FailedError.exit_code


def _explain_use(error: CycloptsError, words: list[str]) -> str:
    """What was wrong with the command line, and where to read more."""
    command = words[0] + " " if words and words[0] in app else ""
    text = str(error)
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        text = f"unexpected {shlex.join(error.unused_tokens)!r}."
    elif type(error) is MissingArgumentError and error.argument:
        text = f"'alexnet {' '.join(error.command_chain or ())}' needs {error.argument.name}."
    elif words and words[0].startswith("-") and not command:
        text = f"{words[0]!r} before a command: options follow it, as in 'alexnet models --json'."
    return f"{text} ('alexnet {command}--help' tells more)"


def _is_begun(words: list[str]) -> bool:
    """Whether the run folder that a command names has a run in it."""
    out = app.parse_args(words, print_error=False, exit_on_error=False)[1].arguments.get("out")
    return out is not None and (Path(out) / "config.json").is_file()


def _interrupted(words: list[str]) -> int:
    """Say in one line how to go on after Ctrl-C."""
    if not is_main():
        return 130
    trains = bool(words) and words[0] in _RESUMABLE
    if trains and not _is_begun(words):
        line = "interrupted before the run was begun: run the same command again"
    elif world_size() > 1:
        line = "interrupted; go on with the same command and --resume"
    elif trains:
        again = words if "--resume" in words else [*words, "--resume"]
        line = f"interrupted; go on with: alexnet {shlex.join(again)}"
    elif words and words[0] == "prepare":
        line = f"interrupted; go on with the same command: alexnet {shlex.join(words)}"
    else:
        line = "interrupted; no file was left half-written: run the same command again"
    print(f"\nalexnet: {line}", file=sys.stderr)  # noqa: T201
    return 130


def _reader_left() -> int:
    """The reader of standard output went away (``| head``): stop quietly, as other tools do."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
