"""Every stale state against an HTTP client, and a table of what it survives::

    pytest --pyargs stalepool_testing.conformance --client requests

``--client`` takes a name of :data:`~stalepool_testing.conformance.clients.CLIENTS`, or
``module:factory`` for your own.
"""
