"""The probe in a program: what the doctor finds there, and what the probe does not do."""

import sys
from importlib.util import find_spec

import pytest

#: one of three clients has no read timeout
CLIENTS = """
import requests
from keystoneauth1 import loading
from oslo_config import cfg
for name in ("neutron", "glance", "unused"):
    loading.register_session_conf_options(cfg.CONF, name)
    loading.register_auth_conf_options(cfg.CONF, name)
cfg.CONF([])
for name in ("neutron", "glance"):
    cfg.CONF.set_override("auth_type", "password", name)
cfg.CONF.set_override("timeout", 30, "glance")
"""
GEVENT = "from gevent import monkey; monkey.patch_all(); import urllib3"
LATE = "import sys; sys.audit('x'); import urllib3, eventlet; eventlet.monkey_patch()"
BROKEN = "import sys; sys.modules['stalepool.connection.checkout'] = None; import urllib3"
KEYSTONE = "ok patches: patched: keystoneauth1.session, urllib3.connectionpool"
NO_TIMEOUT = "warning timeouts: no read timeout: [neutron] timeout"

#: what a program needs; its code; the beginnings of what is found
PROGRAMS = [
    ("eventlet", LATE, ["warning order: eventlet's monkey_patch() came after "]),
    ("gevent", GEVENT, ["ok order: gevent's monkey_patch() came before urllib3"]),
    ("urllib3", "pass", ["warning urllib3: no urllib3: no watched process imported it"]),
    ("urllib3", BROKEN, ["error patches: nothing is patched, although urllib3 is loaded"]),
    ("oslo_config", CLIENTS, ["ok order: native threads", KEYSTONE, NO_TIMEOUT]),
]


@pytest.mark.parametrize(("needs", "program", "beginnings"), PROGRAMS)
def test_a_program(needs, program, beginnings, doctor):
    if find_spec(needs) is None:
        pytest.skip("%s is not installed" % needs)
    found = doctor("--", sys.executable, "-c", program)
    for beginning in beginnings:
        assert "\n" + beginning in found
    assert " copies: " not in found  # requests.packages.urllib3 is none


MODULES = ["ddtrace", "newrelic", "sentry_sdk", "elasticapm", "aws_xray_sdk", "lumigo_tracer"] + [
    "opentelemetry.instrumentation." + client for client in ("urllib3", "requests")
]
SCRIPT = """
import json, sys
import stalepool
from stalepool.cli.doctor import probe
before, tools = set(sys.modules), []
for name in sys.argv[1:]:
    sys.modules[name] = None
    tools += probe.of_process([])["tools"]
    del sys.modules[name]
print(json.dumps([len(tools), sorted(set(sys.modules) - before)]))
"""


def test_it_names_the_tools_and_imports_nothing(run_python):
    assert run_python(SCRIPT, *MODULES) == [len(MODULES), []]
