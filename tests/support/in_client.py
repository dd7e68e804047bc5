"""Tools that client scripts of several test modules share; imported in *their* process.

Imports next to nothing: the scripts are about who is imported when.
"""

import inspect
import select
import sys
import types
import warnings

_poll = select.poll  # before anybody patches it

# eventlet speaks of its own future, cryptography of Python 3.8's
warnings.filterwarnings("ignore", r"\s*Eventlet is deprecated")
warnings.filterwarnings("ignore", r"Python 3.8 is no longer supported")


def check(*copies):
    """Assert that each patch of these ``connectionpool`` modules is there once, and works."""
    for connectionpool in copies:
        assert wrappings(connectionpool) == {1}, (connectionpool, wrappings(connectionpool))
    for connectionpool in copies:
        meet_a_dead_connection(connectionpool)


def wrappings(connectionpool):
    """Count the wrappers at each patched place, whoever they belong to."""
    return {len(chain) - 1 for chain in attributes(connectionpool)}


def attributes(connectionpool):
    """List of each patched place what stands there, what that wraps, and so on."""
    from stalepool.patching import patches

    found = []
    for patch in patches.PATCHES:
        if patch.module == "connectionpool" and patch.parameters is not None:
            chain = [inspect.getattr_static(patch.owner_in(connectionpool), patch.attribute)]
            while hasattr(chain[-1], "__wrapped__"):
                chain.append(chain[-1].__wrapped__)
            found.append(chain)
    return found


def everything_in(package):
    """Every attribute of every module of a package, and of every class they know."""
    found = {}
    for name, module in list(sys.modules.items()):
        if (name + ".").startswith(package + "."):
            classes = [value for value in vars(module).values() if isinstance(value, type)]
            for owner in [module, *classes]:
                for attribute, value in vars(owner).items():
                    found[repr(owner), attribute] = value
    return found


def differences(one, other):
    """The keys whose values are not the same object."""
    return [key for key in {**one, **other} if one.get(key) is not other.get(key)]


def meet_a_dead_connection(connectionpool, found=1):
    """Assert that a pooled connection its server has closed is replaced and counted as such.

    :param found: 0 where the shim must not check.

    The server's port is the script's first argument; it closes after each answer, unannounced.
    """
    pool = connectionpool.HTTPConnectionPool("127.0.0.1", int(sys.argv[1]), retries=False)
    before = deaths()
    answer(pool)
    wait_for_fin(pool)
    answer(pool)
    assert deaths() == before + found, deaths()
    pool.close()


def answer(pool):
    """Send one request, which must succeed, without a retry of urllib3's."""
    assert pool.request("GET", "/", timeout=20.0).status == 200


def wait_for_fin(pool):
    """Wait until the end of the pooled connection has arrived. Does not touch the connection."""
    poller = _poll()
    poller.register(pool.pool.queue[-1].sock.fileno(), select.POLLIN)
    assert poller.poll(20_000)


def deaths():
    """Count the connections that the shim has found closed by their server."""
    import stalepool

    return int(stalepool.snapshot()["totals"]["verdicts"].get("closed", 0))


def forget(package):
    """Delete a package and all its modules from ``sys.modules``."""
    for name in list(sys.modules):
        if name == package or name.startswith(package + "."):
            del sys.modules[name]


def at_lookup(name, act):
    """Do something in the middle of an import: when a module is looked up the next time."""
    acts = [act]

    def find_spec(fullname, path=None, target=None):
        if fullname == name and acts:
            acts.pop()()

    sys.meta_path.insert(0, types.SimpleNamespace(find_spec=find_spec))
