"""``stalepool status``: shows the processes of this machine that run with the shim.

``find`` finds them, ``proc`` and ``content`` read ``/proc`` and their files, ``services`` groups
them. ``page``, ``report`` and ``explain`` write the text; ``command`` prints it.
"""
