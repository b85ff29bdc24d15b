"""How Sphinx builds the site: ``sphinx-build -W -b html docs site``."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lstmcore
from lstmcore import Module, datasets, sklearn

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from example_scripts import write_scripts  # noqa: E402

project = "lstmcore"
author = "the lstmcore authors"
copyright = author
release = version = lstmcore.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
templates_path = ["_templates"]
exclude_patterns = ["_scripts"]

# ---- Pages --------------------------------------------------------------------------------------

myst_heading_anchors = 4
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def links_to_pages(app: object, name: str, source: list[str]) -> None:
    """Turn links to files of the repository that are pages of the site into links to the pages."""
    up = "../" * name.count("/")
    pages = {"README": "index", "CONTRIBUTING": "contributing", "CHANGELOG": "changelog"}
    pages["bench/README"] = "measuring"
    pages["examples/distributed/README"] = "clusters"
    for file, page in pages.items():
        source[0] = source[0].replace(f"](../{up}{file}.md", f"]({up}{page}.md")
    source[0] = re.sub(rf"\]\(\.\./{up}examples/(\w+)\.py\)", rf"]({up}gallery/\1.rst)", source[0])
    # Doctests end with an empty line in the sources.
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


# ---- Gallery of the examples: nothing runs when the site is built -------------------------------

write_scripts(HERE / "_scripts")
sphinx_gallery_conf = {
    "examples_dirs": "_scripts",
    "gallery_dirs": "gallery",
    "plot_gallery": False,
    "within_subsection_order": "FileNameSortKey",
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
}


# ---- Docstrings ---------------------------------------------------------------------------------

autosummary_generate = True
autodoc_mock_imports = ["torch"]  # lstmcore.torch is described without it
autodoc_typehints = "none"  # types stand in the text, as people say them
autodoc_member_order = "bysource"
default_role = "py:obj"
# All of numpydoc's checks but for these:
numpydoc_validation_checks = {
    "all",
    "ES01", "EX01", "SA01",  # short things need no more text, example or "See Also"; a test asks
    #                          for an example of every public name
    "PR01", "PR03", "PR04", "PR07",  # parameters shared with another function stand together, as
    #                                  "pred, target: as for `mse`", and the call's are in the text
    "PR06",  # "integer" is a kind of array here
    "PR08", "PR09", "RT01", "RT02", "RT03", "RT04", "SS02",  # a text may begin with the name of a
    #                          variable and end with a bracket; what returns is often in the summary
}  # fmt: skip
numpydoc_show_class_members = False  # _templates/autosummary/class.rst says which are shown


def public_classes() -> Iterator[tuple[str, type]]:
    """Yield the public classes, by the names that people import."""
    modules = [lstmcore, datasets, sklearn, *(getattr(lstmcore, n) for n in lstmcore.__all__)]
    for module in filter(inspect.ismodule, modules):
        for name in () if module is lstmcore.torch else module.__all__:
            if inspect.isclass(getattr(module, name)):
                yield f"{module.__name__}.{name}", getattr(module, name)


def shown_members(kind: type) -> list[str]:
    """Return the documented members of a class, but for those that it only has as a module."""
    shown = []
    for name in dir(kind):
        owner = next(base for base in kind.__mro__ if name in vars(base))
        ours = owner.__module__.startswith("lstmcore") and (owner is not Module or kind is Module)
        member = vars(owner)[name]
        ours &= not type(member).__module__.startswith("sklearn.")  # which adds set_fit_request
        spoken = callable(getattr(kind, name, None)) or isinstance(member, property)
        if ours and spoken and member.__doc__ and (name[0] != "_" or name == "__call__"):
            shown.append(name)
    return shown


autosummary_context = {  # what _templates/autosummary/class.rst looks up
    "shown": {name: shown_members(kind) for name, kind in public_classes()},
    "modules": [name for name, kind in public_classes() if issubclass(kind, Module)],
}

# ---- Looks --------------------------------------------------------------------------------------

html_theme = "pydata_sphinx_theme"
html_title = f"lstmcore {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {name: [] for name in ("index", "changelog", "contributing", "gallery/index")}
html_theme_options = {
    "show_prev_next": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def setup(app: Any) -> None:
    """Connect what is above."""
    app.connect("source-read", links_to_pages)
