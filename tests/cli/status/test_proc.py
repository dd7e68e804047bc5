"""Facts about a process under ``/proc``."""

import os

import pytest

from stalepool.cli.status import proc


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["/usr/bin/python3", "-X", "dev", "-Werror", "/a/serve", "-x"], "serve"),
        (["python3.11", "-W", "error", "-m", "a.b", "-c"], "python -m a.b"),
        (["python3", "-c", "import a", "b"], "python -c"),
        (["python3", "-i"], "python3"),
        (["/usr/sbin/haproxy", "-f", "x"], "haproxy"),
        ([], "the kernel's"),
    ],
)
def test_the_name_of_a_program(words, name, monkeypatch):
    monkeypatch.setattr(proc, "read", lambda path: "\0".join([*words, ""]).encode())
    assert proc.command(1, "the kernel's") == name


def test_this_process():
    assert proc.fields("/proc/self/status")["Pid"] == str(os.getpid())
    assert proc.process_group(proc.read("/proc/self/stat")) == b"%d" % os.getpgrp()
    assert proc.environ(os.getpid())["PATH"]
