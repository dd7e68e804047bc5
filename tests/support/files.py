"""Files that a test lays out, and the path on which a child finds them."""

import os


def path_of(*directories):
    return {"PYTHONPATH": os.pathsep.join(map(str, directories))}


def lay_out(directory, files, mode=0o644):
    """Write these files, or a ``sitecustomize.py`` of this text; returns the directory."""
    for name, text in (files if isinstance(files, dict) else {"sitecustomize.py": files}).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        path.chmod(mode)
    return directory
