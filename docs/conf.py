import re
from pathlib import Path

project = "stalepool"
author = "the maintainers of stalepool"
# not imported, which would switch it on
_package = Path(__file__).parent.parent / "stalepool" / "__init__.py"
version = release = re.search('__version__ = "(.+?)"', _package.read_text()).group(1)
extensions = ["sphinx.ext.autodoc"]
html_theme = "alabaster"
exclude_patterns = ["_build"]
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "takes",  # a table for the checks of arguments
}
# what is documented elsewhere, and details of a setting's entry
nitpick_ignore_regex = [
    ("py:.*", r"(socket|ssl|collections|typing|opentelemetry|oslo_config)\..*"),
    ("py:class", r"Flag|Choice|Number|Directory|stalepool_testing\.network\.Network"),
]
