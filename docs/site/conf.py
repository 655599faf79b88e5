"""How ``make docs`` builds the site: the repository's Markdown, and the API from docstrings."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

import forebay

log = getLogger(__name__)

project = "Forebay"
author = "the Forebay authors"
version = release = forebay.__version__

# The source folder is the repository, so that links between documents are those of a checkout.
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "docs/**",
    "examples/*/README.md",
]
exclude_patterns = [".*", "out", "bench", "tests", "**/__pycache__"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
default_role = "code"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_use_ivar = True
maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"Forebay {version}"
html_extra_path = ["index.html"]
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

# A link may name any site; what a browser loads by itself may not.
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"'](?:https?:)?//[^>]*>"
    r"|<link\b(?=[^>]*\brel=[\"'](?:stylesheet|preload|icon|preconnect))[^>]*href=[\"'](?:https?:)?//[^>]*>"
    r"|(?:@import\s+|url\()[\"']?(?:https?:)?//[^)\s]*"
)


def warn_of_remote_parts(app: Sphinx, error: Exception | None) -> None:
    """Warn of each page or style sheet that loads anything over the network."""
    pages = [path for kind in ("html", "css") for path in Path(app.outdir).rglob(f"*.{kind}")]
    for path in pages if error is None else ():
        if found := _LOADED.search(path.read_text(encoding="utf-8")):
            log.warning(
                "%s loads %s over the network, expected a site that works without one; keep the"
                " file in the repository",
                path,
                found[0],
            )


def link_folders(app: Sphinx, page: nodes.document) -> None:
    """Let a link to a folder lead to its ``index.md``; a folder without one stays a broken link."""
    env = app.env
    for link in page.findall(pending_xref):
        if link["reftype"] == "myst" and link["reftarget"].endswith("/"):
            folder = Path(env.doc2path(link["refdoc"])).parent / link["reftarget"]
            index = env.path2doc((folder / "index.md").resolve())
            if index in env.found_docs:
                link.update_all_atts(
                    {"refdomain": "std", "reftype": "doc", "reftarget": f"/{index}"}, replace=True
                )


def show_bare_types(*documented: object) -> tuple[str | None, str | None]:
    """Leave the bounds of settings out of signatures: ``Annotated[int, Ge(ge=1)]`` is ``int``."""
    signature, returns = documented[-2:]
    bare = re.sub(r"Annotated\[([^,\[\]]+), [^\[\]]*\]", r"\1", str(signature or ""))
    return bare or None, None if returns is None else str(returns)


def setup(app: Sphinx) -> None:
    """Shorten signatures, resolve links to folders, and check the finished site."""
    app.connect("autodoc-process-signature", show_bare_types)
    app.connect("doctree-read", link_folders)
    app.connect("build-finished", warn_of_remote_parts)
