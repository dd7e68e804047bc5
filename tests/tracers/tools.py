"""Tools that instrument HTTP clients, each set up so that it keeps what it saw and sends nothing.

Nothing but the standard library is imported before a tool is set up: when that happens is what the
tests are about.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Tuple

#: a context that is one transaction, job or trace of the tool's: yields a list, which has what the
#: tool recorded of the requests in it once the context is left
Recording = Callable[[], "contextlib.AbstractContextManager[List[str]]"]


class Tool(NamedTuple):
    """One tool.

    ``distributions``: what it needs installed. ``client``: which library's requests it watches;
    it has to be one that ``set_up`` may import. ``set_up`` switches the tool on.
    """

    distributions: Tuple[str, ...]
    client: str
    set_up: Callable[[], Recording]


def _line(*parts: Any) -> str:
    return " ".join(str(part) for part in parts)


def _newrelic() -> Recording:
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
    recorded: List[Any] = []
    record = Application.record_transaction

    def record_transaction(self: Any, data: Any) -> None:
        recorded.append(data)
        record(self, data)

    Application.record_transaction = record_transaction

    def lines(node: Any) -> Iterator[str]:
        if isinstance(node, ExternalNode):
            yield _line(node.library, node.method, node.agent_attributes.get("http.statusCode"))
        for child in node.children:
            yield from lines(child)

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        recorded.clear()
        with newrelic.agent.BackgroundTask(application, name="case"):
            yield seen
        for data in recorded:
            seen += lines(data.root)

    return recording


def _ddtrace() -> Recording:
    """A trace filter takes every trace away from the writer."""
    os.environ.update(
        DD_INSTRUMENTATION_TELEMETRY_ENABLED="false",
        DD_REMOTE_CONFIGURATION_ENABLED="false",
        DD_TRACE_STARTUP_LOGS="false",
        DD_CRASHTRACKING_ENABLED="false",
        DD_TRACE_STATS_COMPUTATION_ENABLED="false",
        DD_TRACE_AGENT_URL="unix:///nonexistent",
    )
    import ddtrace
    from ddtrace.trace import TraceFilter, tracer

    ended: List[Any] = []

    class Keep(TraceFilter):  # type: ignore[misc]
        def process_trace(self, trace: List[Any]) -> None:
            ended.extend(trace)

    tracer.configure(trace_processors=[Keep()])
    ddtrace.patch(httplib=True, urllib3=True, requests=True)

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        ended.clear()
        with tracer.trace("case"):
            yield seen
        tags = ("http.method", "http.status_code", "error.type")
        for span in ended:
            if span.name != "case":
                seen.append(_line(span.name, *(span.get_tag(tag) for tag in tags)))

    return recording


def _opentelemetry(instrumentor: Any) -> Recording:
    """Two instrumentations: the client's, and the one of http.client's ``send``, for addresses."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from opentelemetry.util.http.httplib import HttpClientInstrumentor

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrumentor.instrument(tracer_provider=provider)
    HttpClientInstrumentor().instrument()

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        exporter.clear()
        yield seen
        attributes = ("http.method", "http.status_code", "net.peer.ip")
        for span in exporter.get_finished_spans():
            seen.append(_line(*(span.attributes.get(name) for name in attributes)))

    return recording


def _opentelemetry_urllib3() -> Recording:
    from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor

    return _opentelemetry(URLLib3Instrumentor())


def _opentelemetry_requests() -> Recording:
    from opentelemetry.instrumentation.requests import RequestsInstrumentor

    return _opentelemetry(RequestsInstrumentor())


def _sentry() -> Recording:
    """A transport of our own."""
    import sentry_sdk
    from sentry_sdk.transport import Transport

    sent: List[Any] = []

    class Keep(Transport):  # type: ignore[misc]
        def capture_envelope(self, envelope: Any) -> None:
            sent.append(envelope)

    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=Keep,
        traces_sample_rate=1.0,
        auto_session_tracking=False,
    )

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        sent.clear()
        with sentry_sdk.start_transaction(name="case"):
            yield seen
        for envelope in sent:
            event = envelope.get_transaction_event()
            for span in event["spans"] if event else ():
                seen.append(_line(span["op"], span["data"].get("http.response.status_code")))

    return recording


def _elastic() -> Recording:
    """Threads and metrics are off, and the queue to the server is a list."""
    import elasticapm

    queue: List[Tuple[str, Any]] = []

    class Client(elasticapm.Client):  # type: ignore[misc]
        def start_threads(self) -> None:
            pass

        def queue(self, event_type: str, data: Any, flush: bool = False) -> None:
            queue.append((event_type, data))

    client = Client(
        service_name="case",
        server_url="http://elastic.invalid",
        metrics_interval="0s",
        central_config=False,
        cloud_provider="none",
        span_compression_enabled=False,
    )
    elasticapm.instrument()

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        queue.clear()
        client.begin_transaction("case")
        try:
            yield seen
        finally:
            client.end_transaction("case")
        for event_type, data in queue:
            if event_type == "span":
                seen.append(_line(data["type"], data["subtype"], data["outcome"]))

    return recording


def _xray() -> Recording:
    """An emitter of our own, and no sampling rules to ask for."""
    from aws_xray_sdk.core import patch, xray_recorder

    class Keep:
        def send_entity(self, entity: Any) -> None:
            pass

    xray_recorder.configure(service="case", sampling=False, emitter=Keep(), daemon_address=None)
    patch(("httplib", "requests"))

    def lines(entity: Any) -> Iterator[str]:
        http = entity.http or {}
        status = http.get("response", {}).get("status")
        yield _line(entity.namespace, http.get("request", {}).get("method"), status)
        for child in entity.subsegments:
            yield from lines(child)

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        segment = xray_recorder.begin_segment("case")
        try:
            yield seen
        finally:
            children = list(segment.subsegments)
            xray_recorder.end_segment()
        for child in children:
            seen += lines(child)

    return recording


def _lumigo() -> Recording:
    """The wrappers that it puts into a Lambda function; what it saw is in its container."""
    os.environ.update(
        AWS_LAMBDA_FUNCTION_VERSION="1",
        AWS_LAMBDA_FUNCTION_NAME="case",
        AWS_REGION="nowhere-1",
        LUMIGO_TRACER_TOKEN="t_0",
        LUMIGO_INITIALIZATION_CONNECTION="false",
    )
    from lumigo_tracer.lambda_tracer.spans_container import SpansContainer
    from lumigo_tracer.wrappers import wrap

    wrap()

    @contextlib.contextmanager
    def recording() -> Iterator[List[str]]:
        seen: List[str] = []
        container = SpansContainer.create_span({}, None, is_new_invocation=True)
        yield seen
        for span in container.spans.values():
            http = span["info"]["httpInfo"]
            status = http.get("response", {}).get("statusCode")
            seen.append(_line(span["type"], http["request"]["method"], status))

    return recording


TOOLS: Dict[str, Tool] = {
    "newrelic": Tool(("newrelic",), "urllib3", _newrelic),
    "ddtrace": Tool(("ddtrace",), "urllib3", _ddtrace),
    "opentelemetry-urllib3": Tool(
        ("opentelemetry-sdk", "opentelemetry-instrumentation-urllib3"),
        "urllib3",
        _opentelemetry_urllib3,
    ),
    "opentelemetry-requests": Tool(
        ("opentelemetry-sdk", "opentelemetry-instrumentation-requests", "requests"),
        "requests",
        _opentelemetry_requests,
    ),
    "sentry": Tool(("sentry-sdk",), "urllib3", _sentry),
    "elastic": Tool(("elastic-apm",), "urllib3", _elastic),
    "xray": Tool(("aws-xray-sdk", "requests"), "requests", _xray),
    "lumigo": Tool(("lumigo-tracer", "requests"), "requests", _lumigo),
}
