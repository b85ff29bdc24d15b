"""The command line: ``python -m lstmcore``, with ``info``, ``demo`` or ``bench``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import lstmcore

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; wrong arguments raise SystemExit(2), as argparse does."""
    parser = argparse.ArgumentParser(
        prog="python -m lstmcore", description="Recurrent layers on the CPU."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("info", help="show version, compiler, instruction set and threads")
    demo = commands.add_parser("demo", help="train a speaker classifier and check its gradients")
    demo.add_argument("--seed", type=_at_least(0), default=0, help="default %(default)s")
    demo.add_argument("--epochs", type=_at_least(1), default=20, help="default %(default)s")
    bench = commands.add_parser("bench", help="measure a few layers, beside PyTorch if installed")
    bench.add_argument(
        "--seconds", type=_positive, default=0.15, help="per case and library, default %(default)s"
    )
    options = parser.parse_args(arguments)

    if options.command == "info":
        print(lstmcore.info())
    elif options.command == "bench":
        from ._commands.bench import main as run_bench

        run_bench(options.seconds)
    else:
        # Not before: `info` needs neither data nor models.
        from ._commands.demo import main as run_demo

        run_demo(options.seed, options.epochs)


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
