"""Tools that instrument HTTP clients, each set up so that it keeps what it saw and sends nothing.

Nothing but the standard library is imported before a tool is set up: when that happens is what the
tests are about.
"""

import contextlib
import importlib
import os
from functools import partial
from typing import Any, NamedTuple


class Tool(NamedTuple):
    """One tool.

    ``distributions``: what it needs installed. ``client``: which library's requests it watches;
    it has to be one that ``set_up`` may import. ``set_up(seen)`` switches the tool on, and returns
    a function that makes a context, which is one transaction, job or trace of the tool's; once it
    is left, the list has a line for each of the requests in it.
    """

    distributions: Any
    client: str
    set_up: Any


def _newrelic(seen):
    """Developer mode: everything is recorded, and the collector's answers are canned."""
    os.environ.update(NEW_RELIC_DEVELOPER_MODE="true", NEW_RELIC_LICENSE_KEY="0" * 40)
    import newrelic.agent
    from newrelic.core.application import Application
    from newrelic.core.external_node import ExternalNode

    newrelic.agent.initialize(log_file=os.devnull)
    utilization = newrelic.agent.global_settings().utilization
    for name in list(vars(utilization)):
        if name.startswith("detect_"):  # the cloud it runs in, by asking around
            setattr(utilization, name, False)
    application = newrelic.agent.register_application(name="case", timeout=30)
    record = Application.record_transaction

    def record_transaction(self, data):
        note(data.root)
        record(self, data)

    def note(node):
        if isinstance(node, ExternalNode):
            seen.append([node.library, node.method, node.agent_attributes.get("http.statusCode")])
        for child in node.children:
            note(child)

    Application.record_transaction = record_transaction
    return partial(newrelic.agent.BackgroundTask, application, name="case")


def _ddtrace(seen):
    """A trace filter takes every trace away from the writer."""
    for name in "INSTRUMENTATION_TELEMETRY", "REMOTE_CONFIGURATION", "CRASHTRACKING":
        os.environ["DD_%s_ENABLED" % name] = "false"
    os.environ.update(DD_TRACE_STATS_COMPUTATION_ENABLED="false", DD_TRACE_STARTUP_LOGS="false")
    os.environ["DD_TRACE_AGENT_URL"] = "unix:///nonexistent"
    import ddtrace
    from ddtrace.trace import TraceFilter, tracer

    class Keep(TraceFilter):
        def process_trace(self, trace):
            tags = ("http.method", "http.status_code", "error.type")
            for span in trace:
                if span.name != "case":
                    seen.append([span.name, *(span.get_tag(tag) for tag in tags)])

    tracer.configure(trace_processors=[Keep()])
    ddtrace.patch(httplib=True, urllib3=True, requests=True)
    return partial(tracer.trace, "case")


def _opentelemetry(client, instrumentor):
    """The tool for a client's requests."""
    distributions = "opentelemetry-sdk", "opentelemetry-instrumentation-" + client, client
    return Tool(distributions, client, partial(_with_opentelemetry, client, instrumentor))


def _with_opentelemetry(client, instrumentor, seen):
    """Two instrumentations: the client's, and the one of http.client's ``send``, for addresses."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
    from opentelemetry.util.http.httplib import HttpClientInstrumentor

    class Keep(SpanExporter):
        def export(self, spans):
            attributes = ("http.method", "http.status_code", "net.peer.ip")
            for span in spans:
                seen.append([span.attributes.get(name) for name in attributes])

    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(Keep()))
    module = importlib.import_module("opentelemetry.instrumentation." + client)
    getattr(module, instrumentor)().instrument(tracer_provider=provider)
    HttpClientInstrumentor().instrument()
    return contextlib.nullcontext


def _sentry(seen):
    import sentry_sdk
    from sentry_sdk.transport import Transport

    class Keep(Transport):
        def capture_envelope(self, envelope):
            event = envelope.get_transaction_event()
            for span in event["spans"] if event else ():
                seen.append([span["op"], span["data"].get("http.response.status_code")])

    options = {"traces_sample_rate": 1.0, "auto_session_tracking": False}
    sentry_sdk.init("https://key@sentry.invalid/1", transport=Keep, **options)
    return partial(sentry_sdk.start_transaction, name="case")


def _elastic(seen):
    """Threads and metrics are off, and the queue to the server is a list."""
    import elasticapm

    class Client(elasticapm.Client):
        def start_threads(self):
            pass

        def queue(self, event_type, data, flush=False):
            if event_type == "span":
                seen.append([data["type"], data["subtype"], data["outcome"]])

    options = {"central_config": False, "cloud_provider": "none", "metrics_interval": "0s"}
    options.update(server_url="http://elastic.invalid", span_compression_enabled=False)
    client = Client(service_name="case", **options)
    elasticapm.instrument()

    @contextlib.contextmanager
    def recording():
        client.begin_transaction("case")
        yield
        client.end_transaction("case")

    return recording


def _xray(seen):
    """An emitter of our own, and no sampling rules to ask for."""
    from aws_xray_sdk.core import patch, xray_recorder

    class Keep:
        def send_entity(self, entity):
            for child in entity.subsegments:
                http = child.http or {}
                status = http.get("response", {}).get("status")
                seen.append([child.namespace, http.get("request", {}).get("method"), status])
                self.send_entity(child)

    xray_recorder.configure(service="case", sampling=False, emitter=Keep(), daemon_address=None)
    patch(("httplib", "requests"))
    return partial(xray_recorder.in_segment, "case")


def _lumigo(seen):
    """The wrappers that it puts into a Lambda function; what it saw is in its container."""
    os.environ.update(AWS_LAMBDA_FUNCTION_VERSION="1", AWS_LAMBDA_FUNCTION_NAME="case")
    os.environ.update(AWS_REGION="nowhere-1", LUMIGO_TRACER_TOKEN="t_0")
    os.environ["LUMIGO_INITIALIZATION_CONNECTION"] = "false"
    from lumigo_tracer.lambda_tracer.spans_container import SpansContainer
    from lumigo_tracer.wrappers import wrap

    wrap()

    @contextlib.contextmanager
    def recording():
        container = SpansContainer.create_span({}, None, is_new_invocation=True)
        yield
        for span in container.spans.values():
            http = span["info"]["httpInfo"]
            status = http.get("response", {}).get("statusCode")
            seen.append([span["type"], http["request"]["method"], status])

    return recording


TOOLS = {
    "newrelic": Tool(("newrelic",), "urllib3", _newrelic),
    "ddtrace": Tool(("ddtrace",), "urllib3", _ddtrace),
    "opentelemetry-urllib3": _opentelemetry("urllib3", "URLLib3Instrumentor"),
    "opentelemetry-requests": _opentelemetry("requests", "RequestsInstrumentor"),
    "sentry": Tool(("sentry-sdk",), "urllib3", _sentry),
    "elastic": Tool(("elastic-apm",), "urllib3", _elastic),
    "xray": Tool(("aws-xray-sdk", "requests"), "requests", _xray),
    "lumigo": Tool(("lumigo-tracer", "requests"), "requests", _lumigo),
}
