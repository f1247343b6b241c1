"""Settings of the documentation's builder, Sphinx."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

from generate import write_generated  # noqa: E402 - stands beside this file

from dyhead_det import __version__  # noqa: E402

project = "dyhead-det"
author = "The dyhead-det authors"
copyright = "The dyhead-det authors"
release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "images"]
myst_enable_extensions = ["colon_fence", "deflist"]  # no formulas: they need a network to show
myst_heading_anchors = 3
nb_execution_mode = "off"  # the notebook is run by a test, not by every build

default_role = "code"  # docstrings write names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"dyhead-det {release}"
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_theme_options = {
    "source_repository": "",
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#0b5fa5", "color-brand-content": "#0b5fa5"},
    "dark_css_variables": {"color-brand-primary": "#6cb6ff", "color-brand-content": "#6cb6ff"},
}

write_generated(DOCS / "generated")
