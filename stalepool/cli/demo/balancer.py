"""The load balancer in front of neutron and nova-api: haproxy, or a relay of our own.

With the arguments ``haproxy PROGRAM CONFIGURATION`` it becomes haproxy by ``exec``, with
``relay FD=HOST:PORT ...`` it relays by itself.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from typing import List, Mapping, Optional

from stalepool.cli.demo.follow import follow_parent
from stalepool.cli.demo.processes import Address, to_address, to_text
from stalepool.cli.demo.relay import Relay

# Where a distribution puts it, which is rarely on a user's PATH.
_SBIN = os.pathsep.join(["/usr/sbin", "/usr/local/sbin"])

# Where it may not open two descriptors for each of maxconn connections, haproxy does not start.
# The time limits are those of the incident: a hang lasts until the demo cuts it off.
_CONFIGURATION = """\
global
    log stdout format raw daemon
    maxconn 100

defaults
    mode http
    log global
    option httplog
    timeout connect 5s
    timeout client 120s
    timeout server 120s
"""

_SERVICE = """
frontend {name}
    bind fd@{fd}
    default_backend {name}

backend {name}
    server {name}-1 {server}
"""


def find_haproxy() -> Optional[str]:
    """The absolute path of haproxy, or None."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path=_SBIN)
    return None if found is None else os.path.abspath(found)


def version_of(haproxy: Optional[str]) -> str:
    """What the balancer is, for the header: ``haproxy 2.6.12`` or ``embedded relay``."""
    if haproxy is None:
        return "embedded relay (haproxy is not installed)"
    says = subprocess.run([haproxy, "-v"], stdout=subprocess.PIPE, timeout=10, check=False).stdout
    number = re.search(r"version (\d+[.\d]*)", says.decode(errors="replace"))
    return f"haproxy {number.group(1)}" if number else "haproxy"


def configuration(services: Mapping[str, int], servers: Mapping[str, Address]) -> str:
    """haproxy's configuration.

    :param services: the descriptor of the listening socket, by the service's name.
    :param servers: where each service runs.
    """
    return _CONFIGURATION + "".join(
        _SERVICE.format(name=name, fd=fd, server=to_text(servers[name]))
        for name, fd in services.items()
    )


def main(arguments: List[str]) -> None:
    """Become haproxy, or relay for ever."""
    kind, *rest = arguments
    if kind == "haproxy":
        program, path = rest
        os.execv(program, [program, "-db", "-f", path])
    relay = Relay()
    for route in rest:
        fd, server = route.split("=")
        relay.serve(socket.socket(fileno=int(fd)), to_address(server))
    relay.run()


if __name__ == "__main__":
    follow_parent()
    main(sys.argv[1:])
