"""``stalepool doctor``: findings about an environment, a program, or a file of settings.

``facts`` asks this environment, ``process`` starts a program with ``probe`` in it, ``unit`` reads a
file; ``questions`` judges what they bring, and ``command`` prints it.
"""
