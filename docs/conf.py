project = "stalepool"
extensions = ["sphinx.ext.autodoc"]
html_theme = "alabaster"
exclude_patterns = ["_build"]
autodoc_default_options = {"members": True, "member-order": "bysource"}
nitpicky = False
