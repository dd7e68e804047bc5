"""A platform without eventlet has no benchmark: it measures green threads, too."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("eventlet") else ["test_bench.py"]
