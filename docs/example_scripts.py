"""The examples as the site shows them: with what they print and draw, which `record.py` keeps."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

HERE = Path(__file__).parent

# Arguments, and the picture that the example draws. Without one, its thumbnail is its output.
EXAMPLES: dict[str, tuple[str, str | None]] = {
    "adding_problem": ("--cells lstm-1997 --seeds 1", "adding_problem"),
    "char_language_model": ("--runs 1", None),
    "demand": ("", "forecast"),
    "forecast": ("", "sunspots"),
    "g2p": ("long short term memory", None),
    "gradient_flow": ("", "gradient_flow"),
    "japanese_vowels": ("", "japanese_vowels"),
    "optuna_search": ("", None),
    "reber_grammar": ("", None),
    "sklearn_forecast": ("", None),
    "sklearn_vowels": ("", None),
    "temporal_order": ("--seeds 0", None),
    "translation": ("", "translation"),
    "voice_activity": ("", "voice_activity"),
}

PLAIN = ".. code-block:: none\n\n"
GALLERY = """Examples
========

Scripts of a few screens each, made to be copied. :doc:`/examples` lists what they were measured to
reach, and how. Times shown here are of a busy machine.
"""


def write_scripts(folder: Path) -> None:
    """Write the examples as sphinx-gallery wants them: a title, a picture, what was printed."""
    folder.mkdir(exist_ok=True)
    (folder / "GALLERY_HEADER.rst").write_text(GALLERY)
    for path in sorted((HERE.parent / "examples").glob("*.py")):
        _, text, code = path.read_text("utf-8").split('"""', 2)
        summary, _, rest = text.partition("\n\n")
        title = re.split("[:,.]", summary)[0]
        rest = re.sub(r"^(    python)", rf"{PLAIN}\1", rest, count=1)
        text = f"{title}\n{'=' * len(title)}\n\n{summary}\n\n{rest}\n"
        _, picture = EXAMPLES.get(path.stem, ("", None))
        if picture:
            text += f".. image:: /images/{picture}.png\n   :alt: {title}\n\n"
        recorded = HERE / "recorded" / path.with_suffix(".txt").name
        if recorded.exists():
            text += f"What it prints:\n\n{PLAIN}" + textwrap.indent(
                recorded.read_text("utf-8"), "    "
            )
        thumbnail = f"images/{picture or 'output_' + path.stem}.png"
        if not (HERE / thumbnail).exists():
            thumbnail = "images/adding_problem.png"
        code = f'"""\n{text}"""\n\n# sphinx_gallery_thumbnail_path = "{thumbnail}"\n{code}'
        (folder / path.name).write_text(code)
