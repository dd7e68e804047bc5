"""``python -m tests.failures.cells KIND``: every fault on one kind of socket, as JSON.

A process of its own for each kind: a green library patches the whole of it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
from typing import Any, Dict, Iterator, Optional

from worlds import enter

from .kinds import KINDS, Kind

NAME = sys.argv[1]
if KINDS[NAME].green:
    enter(KINDS[NAME].green)  # what is imported below asks who has patched the process

from stalepool.sockets import failure  # noqa: E402
from stalepool_testing import Unavailable  # noqa: E402
from stalepool_testing.tls_sockets import ANSWER  # noqa: E402

from .faults import FAULTS, IDLE, SEND, NotMadeError, Scene, names_of, poll_now  # noqa: E402

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n"
PART = b"x" * 1000
MORE_THAN_FITS = b"x" * (1 << 20)

#: whose exceptions are called by their module's name, too
_FOREIGN = ("eventlet", "gevent", "OpenSSL")

Cell = Dict[str, Any]


def all_cells(name: str) -> Iterator[Cell]:
    kind = KINDS[name]
    for version in kind.made_as:
        for fault in FAULTS:
            for side in fault.sides if fault.is_possible(kind) else ():
                cell = {"kind": name, "tls": version, "fault": fault.name, "side": side}
                cell.update(one_cell(kind, version, fault, side))
                yield cell


def one_cell(kind: Kind, version: Optional[str], fault: Any, side: str) -> Cell:
    """Bring one connection to its failure, and ask at once.

    :returns: ``raised`` ("nothing" where the operation went through, "EOF" where the first byte of
        the answer was awaited and there was none), ``poll``, ``judged``, ``right``, and after a
        failed send ``begun`` and ``begun_right``; the last four None where nothing failed;
        ``skipped`` where this machine cannot make the fault.
    """
    scene = Scene(kind, version, side)
    operation = _fail_to_send if side == SEND else _fail_to_receive
    try:
        _exchange(scene)
        return operation(scene, fault)
    except Unavailable as reason:
        return {"skipped": str(reason)}
    finally:
        _close(scene)


def _close(scene: Any) -> None:
    for undo in scene.undo:
        undo()
    for end in scene.pair:
        with contextlib.suppress(Exception):
            end.close()


def _exchange(scene: Any) -> None:
    """A request and its answer, whole; the session tickets of TLS 1.3 are read on the way."""
    scene.client.sendall(HEAD)
    scene.peer.recv(65536)
    scene.peer.sendall(ANSWER)
    response = http.client.HTTPResponse(scene.client, method="GET")
    response.begin()
    assert response.read() == b"ok"


def _send_head(scene: Any, fault: Any) -> None:
    scene.client.sendall(HEAD)
    if fault.when == IDLE:
        scene.settle()
    else:
        scene.peer.recv(65536)


def _fail_to_send(scene: Any, fault: Any) -> Cell:
    try:
        if fault.when == IDLE:
            fault.act(scene)
        _send_head(scene, fault)
        if fault.when != IDLE:
            fault.act(scene)
        if fault.blocks:
            scene.client.sendall(MORE_THAN_FITS)
        for _ in range(3):
            scene.client.sendall(PART)
            scene.settle()
    except BaseException as error:
        return _ask(scene, fault, error, after_send=True)
    return _nothing_failed(scene)


def _fail_to_receive(scene: Any, fault: Any) -> Cell:
    """As ``connection.answer`` does: await the first byte, then let http.client read the head."""
    if fault.when == IDLE:
        fault.act(scene)
    try:
        _send_head(scene, fault)
    except OSError:
        pass  # urllib3 swallows EPIPE of a send, and reads on
    response = http.client.HTTPResponse(scene.client, method="GET")
    scene.undo.append(response.close)
    try:
        if fault.when != IDLE:
            fault.act(scene)
        if not response.fp.peek(1):
            return _ask(scene, fault, None)
        response.begin()
    except BaseException as error:
        return _ask(scene, fault, error)
    return _nothing_failed(scene)


def _nothing_failed(scene: Any) -> Cell:
    cell: Cell = dict.fromkeys(("judged", "right", "begun", "begun_right"))
    return {"raised": "nothing", "poll": names_of(poll_now(scene.raw)), **cell}


def _ask(scene: Any, fault: Any, error: Optional[BaseException], after_send: bool = False) -> Cell:
    if isinstance(error, (Unavailable, NotMadeError)):
        raise error
    if fault.then is not None:
        fault.then(scene)
    found = names_of(poll_now(scene.raw))
    return {
        "raised": "EOF" if error is None else words_of(error),
        "poll": found,
        "judged": _answer_of(failure.has_ended, scene.client, error),
        "right": fault.ended,
        "begun": _answer_of(failure.answer_has_begun, scene.client) if after_send else None,
        "begun_right": fault.has_begun(scene.kind) if after_send else None,
    }


def _answer_of(question: Any, *args: Any) -> Any:
    try:
        return question(*args)
    except Exception as surprise:
        return words_of(surprise)


def words_of(error: BaseException) -> str:
    """Class and arguments, without what differs from one build to the next."""
    cls = type(error)
    module = cls.__module__.split(".")[0]
    if error.args and isinstance(error, OSError) and isinstance(error.args[0], int):
        said = "%d, %s" % (error.args[0], error.args[1] if len(error.args) > 1 else "")
    else:
        said = ", ".join(map(str, error.args))
    said = re.sub(r"\s*\(_ssl\.c:\d+\)", "", said)
    said = re.sub(r"0x[0-9a-f]+", "0x...", said)
    name = cls.__qualname__ if module not in _FOREIGN else "%s.%s" % (module, cls.__qualname__)
    return "%s(%s)" % (name, said if len(said) <= 80 else said[:77] + "...")


print(json.dumps(list(all_cells(NAME))))
