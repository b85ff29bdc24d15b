"""Running the Python blocks of a page of documentation."""

from __future__ import annotations

import doctest
import re
from typing import Any

from helpers.paths import ROOT

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run(page: str, without_prompts: bool = False) -> dict[str, Any]:
    """Run the blocks of a page one after another, and return the names that they leave.

    Those with prompts must give what they show; those without are Python at least, and run if asked
    for.
    """
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)
    names: dict[str, Any] = {}
    for number, block in enumerate(blocks):
        if ">>>" in block:
            test = doctest.DocTestParser().get_doctest(block, names, f"block {number}", page, 0)
            runner = doctest.DocTestRunner(optionflags=FLAGS)
            runner.run(test, clear_globs=False)
            names.update(test.globs)
            assert runner.failures == 0
            continue
        code = compile(block, f"{page} block {number}", "exec")
        if without_prompts:
            exec(code, names)
    return names
