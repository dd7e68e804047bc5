"""``python -m tests.failures.cells KIND``: every fault on one kind of socket, as JSON.

A process of its own for each kind: a green library patches the whole of it.
"""

import http.client
import json
import re
import sys

from worlds import enter

NAME = sys.argv[1]
if NAME.startswith(("eventlet", "gevent")):
    enter(NAME.split()[0])  # what is imported below asks who has patched the process

from stalepool.sockets import failure  # noqa: E402
from stalepool_testing import Unavailable  # noqa: E402
from stalepool_testing.tls_sockets import ANSWER  # noqa: E402

from . import faults  # noqa: E402
from .faults import IDLE, KINDS, SEND, Scene  # noqa: E402

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
PART = b"x" * 1000
MORE_THAN_FITS = b"x" * (1 << 20)


def one_cell(kind, version, fault, side):
    """Bring one connection to its failure, and ask at once.

    :returns: ``raised``: "nothing" where the operation went through, "EOF" where the first byte of
        the answer was awaited and there was none. Where it did not go through ``poll``, ``judged``
        and ``right``, and of a send ``begun`` and ``begun_right``. Or else ``skipped``, where this
        machine cannot make the fault.
    """
    scene = Scene(kind, version, side)
    try:
        _exchange(scene)
        raised, error = "EOF", None
        try:
            if (_send if side == SEND else _receive)(scene, fault):
                return {"raised": "nothing"}
        except Unavailable as reason:
            return {"skipped": str(reason)}
        except faults.NotMadeError:
            raise
        except BaseException as failed:
            raised, error = words_of(failed), failed
        fault.then(scene)
        cell = {"raised": raised, "poll": faults.shown_on(scene.raw), "right": fault.ended}
        cell["judged"] = failure.has_ended(scene.client, error)
        if side == SEND:
            cell["begun"] = failure.answer_has_begun(scene.client)
            cell["begun_right"] = fault.has_begun(kind)
        return cell
    finally:
        scene.close()


def _exchange(scene):
    """A request and its answer, whole; the session tickets of TLS 1.3 are read on the way."""
    scene.client.sendall(HEAD)
    scene.peer.recv(65536)
    scene.peer.sendall(ANSWER)
    response = http.client.HTTPResponse(scene.client, method="GET")
    response.begin()
    assert response.read() == b"ok"


def _send_head(scene, fault):
    """The fault happens before that, or once the peer has read it."""
    if fault.when == IDLE:
        fault.act(scene)
    try:
        scene.client.sendall(HEAD)
        if fault.when == IDLE:
            scene.settle()
        else:
            scene.peer.recv(65536)
    except OSError:
        if scene.side == SEND:
            raise
        # urllib3 swallows EPIPE of a send, and reads on
    if fault.when != IDLE:
        fault.act(scene)


def _send(scene, fault):
    _send_head(scene, fault)
    if fault.blocks:
        scene.client.sendall(MORE_THAN_FITS)
    for _ in range(3):
        scene.client.sendall(PART)
        scene.settle()
    return True


def _receive(scene, fault):
    """As ``connection.answer`` does: await the first byte, then let http.client read the head."""
    response = http.client.HTTPResponse(scene.client, method="GET")
    scene.undo.append(response.close)
    _send_head(scene, fault)
    if not response.fp.peek(1):
        return False
    response.begin()
    return True


def words_of(error):
    """Class and arguments, without what differs from one build to the next."""
    cls = type(error)
    module = cls.__module__.split(".")[0]
    if error.args and isinstance(error, OSError) and isinstance(error.args[0], int):
        said = "%d, %s" % (error.args[0], error.args[1] if len(error.args) > 1 else "")
    else:
        said = ", ".join(map(str, error.args))
    said = re.sub(r"\s*\(_ssl\.c:\d+\)", "", said)
    said = re.sub(r"0x[0-9a-f]+", "0x...", said)
    whose = module + "." if module in ("eventlet", "gevent", "OpenSSL") else ""
    return "%s%s(%s)" % (whose, cls.__qualname__, said if len(said) <= 80 else said[:77] + "...")


found = []
for version in KINDS[NAME].made_as:
    for fault in faults.FAULTS:
        for side in fault.sides if fault.is_possible(KINDS[NAME]) else ():
            cell = one_cell(KINDS[NAME], version, fault, side)
            found.append({"kind": NAME, "tls": version, "fault": fault.name, "side": side, **cell})
print(json.dumps(found))
