"""Patching urllib3: notice the load of each copy, replace its attributes, and undo that."""
