"""``stalepool demo``: a live migration meets dead connections, without the shim and with it.

A live migration has nova-compute update a port at neutron; neutron asks nova-api, and nova-api asks
neutron again, over a pooled connection that has died meanwhile. The demo is nova-compute and
neutron, the fault server of ``stalepool_testing``. nova-api is a process of its own, once with
stalepool and once without: eventlet, and keystoneauth1 as it comes. What happens to its connection
is a table, :mod:`~stalepool.cli.demo.cases`; what came of it is printed.

The command line loads this when it is asked for, and nova-api's processes load as little of it as
they need.
"""
