"""Certificates: one authority for all threads of a process."""

from __future__ import annotations

from typing import Any, Callable

from worlds import WITH_TESTS


def test_threads_that_start_together_have_one_authority(run_python: Callable[..., Any]) -> None:
    script = """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from stalepool_testing import TLS

        together = threading.Barrier(6)

        def authority(_):
            together.wait()
            return TLS().client_context.get_ca_certs(binary_form=True)[0]

        with ThreadPoolExecutor(6) as executor:
            print(len(set(executor.map(authority, range(6)))))
    """
    assert run_python(script, env=WITH_TESTS) == 1
