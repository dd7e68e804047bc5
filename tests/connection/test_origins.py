"""Which connections are known."""

import gc
import weakref

from urllib3.connection import HTTPConnection

from stalepool.connection import origins


def test_a_class_is_not_kept():
    """With it a whole copy of urllib3 would be, where tests delete and import it again."""
    own = type("Own", (HTTPConnection,), {})
    assert origins.is_http1(own("127.0.0.1"))
    kept = weakref.ref(own)
    del own
    gc.collect()
    assert kept() is None
