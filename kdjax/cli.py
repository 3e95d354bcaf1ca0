"""The command line. Light at import: JAX is loaded by the command that needs it."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

EXIT_DONE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


class Command(NamedTuple):
    """A sub-command."""

    usage: str
    summary: str
    example: str
    takes_preset: bool
    parts: tuple[str, ...] = ()
    """What its first argument may be, if it is a command of commands."""


COMMANDS = {
    "distill": Command(
        "PRESET [--a.b value …] [--workdir DIR]",
        "the whole job: teacher, baseline, student, evaluation, export, report",
        "kdjax distill configs/digits.py --student.fit.epochs 40 --workdir runs/digits",
        takes_preset=True,
    ),
    "train": Command(
        "PRESET [--a.b value …] [--workdir DIR]",
        "the teacher of a preset alone, for use as --teacher.run",
        "kdjax train configs/digits.py --workdir runs/digits",
        takes_preset=True,
    ),
    "show": Command(
        "PRESET [--a.b value …]",
        "what a preset means: config, models, loss terms, batches; trains nothing",
        "kdjax show configs/digits.py",
        takes_preset=True,
    ),
    "evaluate": Command(
        "RUN [--checkpoint best] [--split test] [--output FILE]",
        "metrics of a checkpoint, beside its teacher",
        "kdjax evaluate runs/digits/student --checkpoint latest",
        takes_preset=False,
    ),
    "export": Command(
        "RUN [--formats stablehlo] [--output DIR]",
        "a checkpoint as files that need neither kdjax nor Flax",
        "kdjax export runs/digits/student --output exported",
        takes_preset=False,
    ),
    "benchmark": Command(
        "PRESET [--a.b value …] [--synthetic H W C] [--output FILE.json]",
        "how fast a preset trains here, and what its time goes into",
        "kdjax benchmark configs/digits.py --output digits.json",
        takes_preset=True,
    ),
    "plan": Command(
        "PRESET [--a.b value …] [--chip H200] [--chips N] [--images N] [--price P] [--check FILE]",
        "what a preset will cost on 1 to 1,024 chips, and what stops it, before money is spent",
        "kdjax plan configs/cifar100.py --chip v5e --chips 8 --price 1.2 --synthetic 32 32 3",
        takes_preset=True,
    ),
    "cache": Command(
        "build PRESET --teacher.cache.directory DIR [--workdir DIR] | verify DIR | inspect DIR",
        "a teacher's answers on disk: built ahead of training, checked, described",
        "kdjax cache build configs/digits.py --teacher.cache.directory caches/digits",
        takes_preset=False,
        parts=("build", "verify", "inspect"),
    ),
    "derive": Command(
        "RUN [--width W | --params P | --flops F | --latency_ms MS] [--depth D] [--out RUN]",
        "a student cut from a run, before and after; trains nothing",
        "kdjax derive runs/digits/teacher --params 0.25 --out runs/quarter",
        takes_preset=False,
    ),
    "ensemble": Command(
        "join RUN RUN… --out RUN [--weights W W…] [--weighting W] | split RUN --member I --out RUN",
        "several runs as one that answers with their mean, and a member of it as a run",
        "kdjax ensemble join runs/one/teacher runs/two/teacher --out runs/both",
        takes_preset=False,
        parts=("join", "split"),
    ),
    "weights": Command(
        "import FILE --model NAME --num-classes N --out RUN | export RUN [--out FILE]",
        "weights from PyTorch files as runs, and back",
        "kdjax weights import net.safetensors --model resnet18 --num-classes 1000 --out runs/r18",
        takes_preset=False,
        parts=("import", "export"),
    ),
    "data": Command(
        "prepare NAME [--from DIR] [--directory DIR] | show NAME [--output FILE.png]",
        "data sets: prepared without TensorFlow, and looked at",
        "kdjax data prepare cifar100 --from downloads",
        takes_preset=False,
        parts=("prepare", "show"),
    ),
    "report": Command(
        "RUN… --output FILE",
        "one page about one or several jobs",
        "kdjax report runs/digits runs/other --output report.html",
        takes_preset=False,
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Errors are a line or two on stderr, or all with `--debug`."""
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:  # a command's help exits
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return EXIT_FAILED


def _run(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return EXIT_DONE if arguments else EXIT_USAGE
    if arguments[0] == "--version":
        from kdjax import __version__

        print(f"kdjax {__version__}")
        return EXIT_DONE
    name, *rest = arguments
    if name not in COMMANDS:
        return _usage_error(f"unknown command {name!r}{_closest(name)}; see kdjax --help")
    command = COMMANDS[name]
    own_help = command.takes_preset or command.parts
    if not rest or (own_help and rest[0] in ("-h", "--help")):
        print(_command_help(name))
        return EXIT_DONE if rest else EXIT_USAGE
    if command.takes_preset and rest[0].startswith("-"):
        return _usage_error(f"the preset comes first: kdjax {name} {command.usage}")
    if command.parts and rest[0] not in command.parts:
        return _usage_error(f"{name} {rest[0]}: it is {' or '.join(command.parts)}")
    return _guarded(name, rest, debug)


def _guarded(name: str, arguments: list[str], debug: bool) -> int:
    if not debug:
        _quiet_libraries()
    run: Callable[[list[str]], None] = import_module(f"kdjax.commands.{name}").run
    try:
        run(arguments)
    except KeyboardInterrupt:
        print("kdjax: interrupted; the same command goes on from what is saved.", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        raise  # to `main`
    except Exception as error:
        if debug:
            traceback.print_exc()
        # Only what has loaded JAX can be preempted, or have processes to leave.
        return _failed_training(error) if "jax" in sys.modules else _failed(error)
    return EXIT_DONE


def _failed(error: Exception) -> int:
    print(f"kdjax: {_explain(error)}", file=sys.stderr)
    return EXIT_FAILED


def _failed_training(error: Exception) -> int:
    import jax

    from kdjax.training.loop import Preempted
    from kdjax.training.preemption import EXIT_PREEMPTED
    from kdjax.training.processes import abandon

    if isinstance(error, Preempted):
        print(f"kdjax: {error}; the same command goes on from here.", file=sys.stderr)
        return EXIT_PREEMPTED
    code = _failed(error)
    if jax.distributed.is_initialized():
        abandon(code)  # an orderly exit would wait for processes that wait for this one
    return code


def _explain(error: Exception) -> str:
    """What the user can do about it; an error that is not theirs is named as such."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, ValueError):
        return "\n".join(lines[:2])
    if isinstance(error, OSError):
        return lines[0]
    return f"unexpected {type(error).__name__}: {lines[0]} (--debug shows where)"


def _usage_error(message: str) -> int:
    print(f"kdjax: {message}", file=sys.stderr)
    return EXIT_USAGE


def _closest(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:<{width}}  {c.summary}" for name, c in COMMANDS.items())
    return f"""usage: kdjax COMMAND …

Compress a vision network: train a teacher, derive a student, distil, evaluate, export, report.

commands:
{rows}

options:
  --help     of kdjax, of a command, or of a preset: kdjax distill PRESET --help
  --debug    show the traceback of an error
  --version

example:
  {COMMANDS["distill"].example}"""


def _command_help(name: str) -> str:
    command = COMMANDS[name]
    more = (
        f"\n\n  kdjax {name} PRESET --help lists every field that can be set.\n"
        "  --teacher.model and --student.model also take a network's name, such as resnet20."
        if command.takes_preset
        else f"\n\n  kdjax {name} {'|'.join(command.parts) or 'RUN'} --help lists every flag."
    )
    return (
        f"usage: kdjax {name} {command.usage}\n\n  {command.summary}{more}\n\n"
        f"example:\n  {command.example}"
    )


def _quiet_libraries() -> None:
    """Keep the chatter of libraries out of a job's log."""
    import logging

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    # Orbax logs a traceback of every error it raises; we say it in a line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _without_closed_loops


def _without_closed_loops(unraisable: "sys.UnraisableHookArgs") -> None:
    """A read that failed leaves others behind that report to an event loop which is gone."""
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    sys.exit(main())
