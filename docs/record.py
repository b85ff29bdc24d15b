"""Run the examples and the tour, and keep what the site shows of them: outputs and pictures.

    python docs/record.py                     # all, some minutes
    python docs/record.py gradient_flow tour  # some

Outputs go to docs/recorded, pictures to docs/images. An output is recorded with its command as its
first line.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
from example_scripts import EXAMPLES

import lstmcore as lc

matplotlib.use("Agg")

ROOT = Path(__file__).parent.parent
IMAGES, RECORDED = ROOT / "docs" / "images", ROOT / "docs" / "recorded"


def record(name: str, arguments: str, picture: str | None) -> None:
    """Run an example, and keep its output and its picture."""
    command = ["python", f"examples/{name}.py", *arguments.split()]
    if picture:
        command += ["--picture", f"docs/images/{picture}.png"]
    run = [sys.executable, *command[1:]]
    done = subprocess.run(run, cwd=ROOT, check=True, capture_output=True, text=True)
    RECORDED.mkdir(exist_ok=True)
    (RECORDED / f"{name}.txt").write_text(f"$ {shlex.join(command)}\n{done.stdout}")
    if not picture:
        thumbnail(name, done.stdout)


def thumbnail(name: str, output: str) -> None:
    """Draw the first lines of an output."""
    from matplotlib import pyplot

    with pyplot.style.context("lstmcore.plot"):
        figure = pyplot.figure(figsize=(4, 2.8))
        lines = [line[:38] for line in output.splitlines()[:9]]
        figure.text(0.04, 0.94, "\n".join(lines), va="top", family="monospace", fontsize=11)
        figure.savefig(IMAGES / f"output_{name}.png", dpi=100)
        pyplot.close(figure)


def record_tour() -> None:
    """Run the pages of the tour that draw pictures, and keep those."""
    sys.path.insert(0, str(ROOT / "tests"))
    from helpers import pages

    for page in sorted((ROOT / "docs" / "tour").glob("*.md")):
        if "savefig" in page.read_text("utf-8"):
            with tempfile.TemporaryDirectory() as folder:
                before = Path.cwd()
                os.chdir(folder)
                try:
                    pages.run(str(page.relative_to(ROOT)))
                finally:
                    os.chdir(before)
                for picture in Path(folder).glob("tour_*.png"):
                    (IMAGES / picture.name).write_bytes(picture.read_bytes())


def main() -> None:
    """Record what is named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="name", help=f"{', '.join(EXAMPLES)} or tour")
    names = parser.parse_args().names or [*EXAMPLES, "tour"]
    for name in names:
        print(name, flush=True)
        if name == "tour":
            record_tour()
        else:
            record(name, *EXAMPLES[name])
    print(lc.info())


if __name__ == "__main__":
    main()
