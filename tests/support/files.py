"""Files that a test lays out, and the path on which a child finds them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict


def path_of(*directories: Any) -> Dict[str, str]:
    return {"PYTHONPATH": os.pathsep.join(map(str, directories))}


def lay_out(directory: Path, files: Any, mode: int = 0o644) -> Path:
    """Write these files, or a ``sitecustomize.py`` of this text; returns the directory."""
    for name, text in (files if isinstance(files, dict) else {"sitecustomize.py": files}).items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        path.chmod(mode)
    return directory
