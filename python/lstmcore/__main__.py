"""The command line: ``python -m lstmcore info`` and ``python -m lstmcore demo``."""

from __future__ import annotations

import argparse
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
    options = parser.parse_args(arguments)

    if options.command == "info":
        print(lstmcore.info())
    else:
        from . import demo as run  # not before: the data and the models are of no use to `info`

        run.main(options.seed, options.epochs)


def _at_least(least: int) -> Callable[[str], int]:
    def integer(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is less than {least}")
        return value

    return integer


if __name__ == "__main__":
    main()
