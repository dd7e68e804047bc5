"""Figures of what stalepool costs, beside stock urllib3 and beside the least it could cost.

``python -m bench`` from the root of the repository; ``--help`` says the rest. Machines differ, so
what counts are ratios: what is compared is measured by turns, a ratio is taken in each, and the
median is given with an interval.

*The floor* is a bare ``poll(0)`` on a kept poll object: no check that asks the kernel from Python
can cost less. *Stock* is what urllib3 does by itself, *ours* what it does with stalepool.
"""

import select

#: the floor's poll, taken before anybody patches: eventlet deletes it from ``select``
kernel_poll = select.poll
THREADS, EVENTLET = "threads", "eventlet"
