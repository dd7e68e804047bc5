"""``python -m bench.small``: the small figures once more, by pyperf's own runner.

It measures one function after the other, each in some twenty processes; in :mod:`bench.rounds` they
take turns, so that a machine that changes its speed changes no ratio. On a steady machine both say
the same. The options are pyperf's: ``--fast``, ``--rigorous``, ``-o FILE``.
"""

from __future__ import annotations

import pyperf

from bench.checkout import the_three
from bench.server import Server


def main() -> None:
    runner = pyperf.Runner(program_args=("-m", "bench.small"))
    for kind in ("plain", "TLS"):
        with Server(tls=kind == "TLS") as server:
            for name, (function, argument, _) in the_three(server.at).items():
                runner.bench_func("%s, %s" % (kind, name), function, argument)


if __name__ == "__main__":
    main()
