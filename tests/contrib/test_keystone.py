"""keystoneauth1's ``connect_retries``: left alone, and said once what it does to a POST."""

import pytest

pytest.importorskip("keystoneauth1")


def test_without_wrapt_there_is_no_warning(run_python):
    """And nothing else is missing."""
    script = """
        import sys
        sys.modules["wrapt"] = None
        import stalepool
        from keystoneauth1 import session
        seen = stalepool.snapshot()
        assert "urllib3.connectionpool" in seen["patched"] and seen["installed"]
        (left_out,) = seen["unpatched"]
        assert left_out == "keystoneauth1.session.Session.request: could not be patched"
    """
    run_python(script, flags=["-Wignore"], complains=True)


def test_it_is_said_once_a_process(run_python):
    script = """
        import contextlib, logging
        import stalepool
        from logs import Records
        from keystoneauth1 import adapter, exceptions, noauth, session
        from stalepool_testing import FaultServer, ProcessThenReset, Respond

        said = Records()
        logging.getLogger("stalepool").addHandler(said)
        logging.getLogger("keystoneauth").addHandler(logging.NullHandler())

        def post(**options):
            with FaultServer([Respond(200), ProcessThenReset(), Respond(200)]) as server:
                by = session.Session(auth=noauth.NoAuth(server.url))
                client = adapter.Adapter(by, endpoint_override=server.url, **options)
                by.get(server.url)
                with contextlib.suppress(exceptions.ConnectFailure):
                    client.post("/pay", connect_retry_delay=0.01)
                by.session.close()
                return len(server.journal.processed("POST", "/pay"))

        def is_wrapped():
            return hasattr(vars(session.Session)["request"], "__wrapped__")

        assert post() == 1 and not said.records, said.lines
        assert post(connect_retries=3) == 2  # that is what it does
        assert post(connect_retries=2) == 2
        record, = said.records
        assert (record.name, record.levelname) == ("stalepool.keystone", "WARNING"), said.lines
        assert "connect_retries=3" in said.lines[0] and "POST" in said.lines[0]
        assert is_wrapped()
        assert stalepool.uninstall() == []
        assert not is_wrapped()
        stalepool.install()  # as in a process that has imported keystoneauth1 before
        assert is_wrapped()
    """
    run_python(script)


def test_it_is_pickled_and_copied_as_without_us(run_python):
    script = """
        import copy, pickle
        import stalepool
        import requests
        from keystoneauth1.session import Session

        def pickled(method):
            return pickle.loads(pickle.dumps(method))

        session = Session(session=requests.Session())
        for again, is_same in ((copy.copy, True), (copy.deepcopy, False), (pickled, False)):
            of_session = again(session.request).__self__
            assert isinstance(of_session, Session) and (of_session is session) is is_same, again
            assert again(Session.request).__wrapped__ is Session.request.__wrapped__, again
    """
    run_python(script)


def test_wrapt_is_not_loaded_under_the_import_lock(run_python):
    """Else a thread that loads it, and this one, which waits for that, wait for one another."""
    script = """
        import _imp, json, sys
        held = []

        def hook(event, args):
            if event == "exec" and args[0].co_filename.endswith("wrapt/__init__.py"):
                held.append(_imp.lock_held())

        sys.addaudithook(hook)
        import stalepool
        import keystoneauth1.session
        print(json.dumps(held))
    """
    assert run_python(script) == [False]
