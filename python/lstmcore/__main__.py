"""The command line, ``lstmcore`` or ``python -m lstmcore``: ``info``, ``demo`` and ``bench``."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence

import lstmcore

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; wrong arguments raise SystemExit(2), as argparse does."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        if options.command is None:
            parser.print_help()
        else:
            _run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None  # what shells say of a program that ends by SIGPIPE


def _parser() -> argparse.ArgumentParser:
    as_module = os.path.basename(sys.argv[0]) == "__main__.py"
    parser = argparse.ArgumentParser(
        prog="python -m lstmcore" if as_module else "lstmcore",
        description="Recurrent layers on the CPU.",
        epilog="LSTMCORE_NUM_THREADS=1 in the environment keeps to one thread, LSTMCORE_ISA to an "
        "instruction set.",
    )
    parser.add_argument("--version", action="version", version=f"lstmcore {lstmcore.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    commands.add_parser("info", help="show version, compiler, instruction set and threads")
    demo = commands.add_parser(
        "demo", help="train a speaker classifier; compare speed and gradients with plain NumPy"
    )
    demo.add_argument("--seed", type=_at_least(0), default=0, help="default %(default)s")
    demo.add_argument("--epochs", type=_at_least(1), default=20, help="default %(default)s")
    bench = commands.add_parser("bench", help="measure a few layers, beside PyTorch if installed")
    bench.add_argument(
        "--seconds", type=_positive, default=0.15, help="per case and library, default %(default)s"
    )
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.command == "info":
        print(lstmcore.info())
    elif options.command == "bench":
        from ._commands.bench import main as run_bench

        run_bench(options.seconds, show=_show)
    else:
        # Not before: `info` needs neither data nor models.
        from ._commands.demo import main as run_demo

        run_demo(options.seed, options.epochs, show=_show)


def _show(line: str) -> None:
    print(line, flush=True)


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


if __name__ == "__main__":
    main()
