"""Say in the service's log that the shim is off, at its first connection.

Not earlier, because services import urllib3 before they configure their logging.
"""

from __future__ import annotations

import functools
from types import FunctionType, ModuleType
from typing import Any, Callable


def at_first_connection(module: ModuleType, say: Callable[[], None]) -> None:
    """Have a function called when a pool of this module first makes a connection.

    Until then ``HTTPConnectionPool._new_conn`` is replaced. Nothing is done if the pool is another
    class, or if somebody has patched it.
    """
    pool: Any = vars(module).get("HTTPConnectionPool")
    stock = vars(pool).get("_new_conn") if isinstance(pool, type) else None
    if not isinstance(stock, FunctionType) or hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def _new_conn(*args: Any, **kwargs: Any) -> Any:
        if vars(pool).get("_new_conn") is _new_conn:
            pool._new_conn = stock
            say()
        return stock(*args, **kwargs)

    pool._new_conn = _new_conn
