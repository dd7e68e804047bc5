"""``stalepool doctor``: findings about an environment, a program, or a file of settings.

``facts`` collects the facts of this environment, ``process`` those of a program that it starts with
``probe`` in it, and ``unit`` reads a file. ``questions`` judges the facts; ``command`` prints the
findings.
"""
