"""Settings of Sphinx: `python -m sphinx -W --keep-going -b html docs docs/_build/html`.

The pages are Markdown that GitHub shows as well. So what Sphinx needs beyond it is added here: the tables of contents
(every page of a folder, below the README.md of that folder), and the addresses of files that lie outside of `docs`.
"""

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

os.environ.setdefault("OPHYD_CONTROL_LAYER", "dummy")  # the reference imports ophyd devices; no EPICS is needed
DOCS = Path(__file__).parent
PROJECT = DOCS.parent
REPOSITORY = "https://github.com/petif-bluesky/petif-bluesky"
SECTIONS = ("tutorial", "how-to", "reference", "explanation", "decisions")
sys.path.insert(0, str(PROJECT))

project = "petif-bluesky"
version = release = installed_version(project)
author = "the developers of petif-bluesky"
copyright = "the developers of petif-bluesky, BSD-3-Clause"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
smartquotes = False  # it would make one dash of the two of --option

myst_heading_anchors = 4
default_role = "code"  # single backquotes in docstrings
napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "github_url": REPOSITORY,
    "use_edit_page_button": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": len(SECTIONS),
    "secondary_sidebar_items": ["page-toc"],
}

linkcheck_timeout = 20
linkcheck_ignore = [
    r"http://(127\.0\.0\.1|localhost|tiled\.example)",  # examples
    rf"{re.escape(REPOSITORY)}/(blob|tree)/",  # files of this repository; tests/docs looks whether they are there
]

_LINK = re.compile(r"(?<=\]\()(?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
_PAGE = re.compile(r"\]\(([\w-]+)\.md\)")
_PARAMETER = re.compile(r"^(?P<indent> *)(?P<names>\w+(?:, \w+)*): (?P<text>.+)$")
_BEFORE_NAPOLEON = 400


def setup(app: Sphinx) -> None:
    """Add to each page what GitHub does not need."""
    app.connect("source-read", _complete)
    app.connect("autodoc-process-docstring", _tell_texts_from_types, priority=_BEFORE_NAPOLEON)
    app.connect("autodoc-process-docstring", _add_signals)


def _complete(app: Sphinx, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name)).resolve()
    source[0] = _LINK.sub(lambda link: _address(page.parent, link), source[0]) + _contents(name, source[0])


def _address(folder: Path, link: re.Match[str]) -> str:
    """Return the link as Sphinx can follow it: a page, a file below `docs`, or an address in the repository."""
    target = (folder / link["path"]).resolve()
    if target.is_dir() and (target / "README.md").is_file() and target.is_relative_to(DOCS):
        return f"{link['path'].rstrip('/')}/README.md"
    if target.is_relative_to(DOCS) or not target.exists():
        return link[0]
    kind = "tree" if target.is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{target.relative_to(PROJECT).as_posix()}{link['anchor'] or ''}"


def _contents(name: str, text: str) -> str:
    """Return the contents of a section: its pages in the order in which its README.md names them, then all others."""
    if name == "index":
        entries = [f"{section}/README" for section in SECTIONS]
    elif name.endswith("/README"):
        there = {page.stem: None for page in sorted((DOCS / name).parent.glob("*.md")) if page.stem != "README"}
        entries = [*dict.fromkeys(page for page in (*_PAGE.findall(text), *there) if page in there)]
    else:
        return ""
    return "\n\n```{toctree}\n:hidden:\n:maxdepth: 2\n\n" + "\n".join(entries) + "\n```\n"


def _tell_texts_from_types(_app: Sphinx, *told: Any) -> None:
    """Write `name: text` in the parameters of a docstring as numpy does, where `name: ...` would be its type."""
    lines: list[str] = told[-1]
    inside, result = False, []
    for line in lines:
        if line.strip() == "Parameters":
            inside = True
        elif not line.strip():
            inside = False
        parameter = _PARAMETER.match(line) if inside else None
        if parameter:
            result += [f"{parameter['indent']}{parameter['names']}", f"{parameter['indent']}    {parameter['text']}"]
        else:
            result.append(line)
    lines[:] = result


def _add_signals(_app: Sphinx, what: str, *told: Any) -> None:
    """List the signals of an ophyd device below its docstring."""
    from ophyd import Device  # noqa: PLC0415 - the environment above comes first

    _name, part, _options, lines = told
    if what == "class" and issubclass(part, Device):
        described = [(name, getattr(part, name).doc) for name in part.component_names]
        documented = [f"- `{name}`: {doc}" for name, doc in described if doc and "\n" not in doc]
        lines += ["", *documented, ""] if documented else []
