"""Test an HTTP client with every stale state, and print a table of what it survives::

    pytest --pyargs stalepool_testing.conformance --client requests

``--client`` takes a name of :data:`~stalepool_testing.conformance.clients.CLIENTS`, or
``module:factory`` for your own.
"""
