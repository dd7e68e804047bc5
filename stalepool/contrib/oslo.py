"""For OpenStack: options in ``[stalepool]``, and a section in the Guru Meditation Report.

A service that calls :func:`install` with its configuration gets the options; for one whose code
cannot be changed there are the ``STALEPOOL_*`` variables. ``oslo-config-generator --namespace
stalepool`` lists the options. Only :func:`register_report` imports oslo.reports.
"""

from __future__ import annotations

import functools
import json
from typing import Any, List, Tuple

from oslo_config import cfg

from stalepool import control
from stalepool.settings import SETTINGS

GROUP = "stalepool"


@functools.lru_cache(maxsize=None)  # of an option that is registered twice it has to be the same
class _Type:
    """A setting as oslo.config wants its types."""

    type_name = "value"

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __call__(self, value: Any) -> Any:
        try:
            return self._kind.parse(value)
        except (ValueError, OverflowError):
            raise ValueError("it takes %s" % self._kind.accepts)

    def __repr__(self) -> str:
        return self._kind.accepts  # type: ignore[no-any-return]


def options() -> List[Any]:
    """Return one option for each of :data:`stalepool.settings.SETTINGS`; none has a default.

    If an option is not in the file, the variable or stalepool's default counts.
    """
    type_of: Any = _Type  # any callable is a type to oslo.config
    return [
        cfg.Opt(
            name,
            type=type_of(kind),
            sample_default="off" if default is None else default,
            help="%s. Takes %s." % (meaning[0].upper() + meaning[1:], kind.accepts),
        )
        for name, (kind, default, meaning) in SETTINGS.items()
    ]


def list_opts() -> List[Tuple[str, List[Any]]]:
    """Return the options by section, for oslo-config-generator."""
    return [(GROUP, options())]


def install(conf: Any) -> None:
    """Install with the options of ``[stalepool]``, which override the variables.

    :param conf: an oslo.config configuration that has been called, such as ``cfg.CONF``.
    :raises oslo_config.cfg.ConfigFileValueError: a value is wrong; then nothing has changed.
    """
    conf.register_opts(options(), GROUP)
    control.install(**{name: conf[GROUP][name] for name in SETTINGS if _is_set(conf, name)})


def _is_set(conf: Any, name: str) -> bool:
    where = conf.get_location(name, GROUP)
    return where is not None and where.location is not cfg.Locations.opt_default


def register_report() -> None:
    """Add a section ``stalepool`` to the Guru Meditation Report of this process: the snapshot."""
    from oslo_reports import guru_meditation_report as report

    report.TextGuruMeditation.register_section(GROUP, _Section)


class _Section:
    """A model and its view in one: oslo.reports calls the class, and prints ``str()`` of it."""

    def set_current_view_type(self, kind: str, visited: Any = None) -> None:
        """Do nothing: the section is text in every kind of report."""

    def __str__(self) -> str:
        return json.dumps(control.snapshot(), indent=2)
