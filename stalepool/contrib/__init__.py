"""Patches of libraries above urllib3: they warn, and change nothing."""
