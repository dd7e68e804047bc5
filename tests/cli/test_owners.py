"""Whose files they are: root, nova, and mallory, who is nobody's friend."""

import grp
import os
import pwd
from types import SimpleNamespace

import pytest

from files import lay_out
from stalepool.cli import owners

ROOT, NOVA, MALLORY, DEPLOY = 0, 1001, 1002, 1003
STAFF, USERS, TEAM, LDAP, PRIVATE, DEPLOYERS, UNKNOWN = 50, 100, 200, 300, 1001, 1003, 65000

#: group -> whom it lists; user -> number, and primary group
NO_MEMBERS = dict.fromkeys((ROOT, STAFF, USERS, PRIVATE, DEPLOYERS), ())
GROUPS = {**NO_MEMBERS, ROOT: ["mallory"], TEAM: ["mallory"], LDAP: ["eve"]}
STRANGERS = {"mallory": (MALLORY, USERS), "deploy": (DEPLOY, DEPLOYERS)}
PRIMARY = {"root": (ROOT, ROOT), "nova": (NOVA, PRIVATE), **STRANGERS}


@pytest.mark.parametrize(
    ("mode", "user", "group", "is_parent", "is_refused"),
    [
        (0o755, MALLORY, USERS, False, True),
        (0o1777, MALLORY, USERS, True, True),  # an owner is bound by no sticky bit
        (0o757, ROOT, ROOT, False, True),
        (0o777, ROOT, ROOT, True, True),
        (0o1777, ROOT, ROOT, True, False),
        (0o1777, ROOT, ROOT, False, True),
        (0o775, ROOT, ROOT, False, False),  # whomever it lists
        (0o664, NOVA, PRIVATE, False, False),  # the umask 002 of private groups
        (0o2775, ROOT, STAFF, True, False),  # /usr/local of some distributions
        (0o775, NOVA, USERS, False, True),  # somebody's primary group
        (0o775, NOVA, TEAM, False, True),
        (0o775, NOVA, LDAP, False, True),  # a member whom nobody lists
        (0o775, NOVA, UNKNOWN, False, True),
        (0o775, DEPLOY, DEPLOYERS, False, False),  # who is trusted
    ],
)
def test_in_whose_hands_it_is(mode, user, group, is_parent, is_refused, monkeypatch):
    users = [SimpleNamespace(pw_name=n, pw_uid=u, pw_gid=g) for n, (u, g) in PRIMARY.items()]
    groups = {number: SimpleNamespace(gr_name="x", gr_mem=who) for number, who in GROUPS.items()}
    by_number = {each.pw_uid: each for each in users}
    known = SimpleNamespace(getpwall=lambda: users, getpwuid=by_number.__getitem__)
    monkeypatch.setattr(owners, "pwd", known)
    monkeypatch.setattr(owners, "grp", SimpleNamespace(getgrgid=groups.__getitem__))
    monkeypatch.setattr(owners.os, "geteuid", lambda: NOVA)
    owners._is_private.cache_clear()
    status = os.stat_result((mode, 1, 1, 1, user, group, 0, 0, 0, 0))
    assert bool(owners.who_else_may_write(status, [DEPLOY], is_parent)) is is_refused
    owners._is_private.cache_clear()


@pytest.fixture
def package(tmp_path):
    package = lay_out(tmp_path.resolve() / "lib" / "package", {"it/it.py": ""})
    (package / "link").symlink_to("nowhere")  # nobody minds
    return package


@pytest.mark.parametrize(("place", "mode"), [("it/it.py", 0o666), ("it", 0o1777), ("..", 0o777)])
def test_what_is_in_it_and_above_it(place, mode, package):
    assert owners.first_writable_by_others(package) is None
    changed = (package / place).resolve()
    changed.chmod(mode)
    assert owners.first_writable_by_others(package) == (changed, "may be written to by everybody")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_user_and_a_group_are_named_or_numbered(package):
    _, _, nobody, nogroup, *_ = pwd.getpwnam("nobody")
    assert [owners.uid_of("nobody"), owners.uid_of("12345")] == [nobody, 12345]
    package.chmod(0o775)
    for user, group, said in (
        (nobody, 0, "belongs to nobody"),
        (12345, 0, "belongs to 12345"),
        (1, 12345, "may be written to by the group 12345"),
        (0, nogroup, "may be written to by the group " + grp.getgrgid(nogroup).gr_name),
    ):
        os.chown(str(package), user, group)
        assert owners.first_writable_by_others(package, [1]) == (package, said)
