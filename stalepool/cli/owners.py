"""Owners and permissions: no other user may change the files that are injected into a process."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Collection, FrozenSet, Optional, Tuple

ROOT = 0


def uid_of(user: str) -> int:
    """Return the number of a user of this machine, given by name or number.

    :raises ValueError: there is no user of that name.
    """
    if user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError("this machine has no user %r" % user)


def first_writable_by_others(
    directory: Path, trusted: Collection[int] = ()
) -> Optional[Tuple[Path, str]]:
    """Find the first file or directory, in a directory or above it, that another user may change.

    Reads the status of every file in it, some 200 for the package: too slow for every Python
    process. Files that vanish meanwhile, and broken links, are skipped.

    :param directory: an absolute path without symbolic links.
    :param trusted: numbers of further users who may change it.
    :returns: the path, and who may change it, as from :func:`who_else_may_write`.
    """
    for place in [directory, *sorted(directory.rglob("*")), *directory.parents]:
        try:
            status = place.stat()
        except OSError:
            continue
        hands = who_else_may_write(status, trusted, is_parent=place in directory.parents)
        if hands:
            return place, hands
    return None


def who_else_may_write(
    status: os.stat_result, trusted: Collection[int] = (), is_parent: bool = False
) -> str:
    """Say who may change a file besides root, the effective user and the trusted users.

    That is its owner; everybody, if everybody may write to it; or its group, if the group may write
    to it and is not private. (With the umask 002 of many distributions, a user's files may be
    written to by a group of which he is the only member.) Access control lists count as far as
    Linux shows them in the group's permissions.

    :param status: the file's.
    :param is_parent: it is a directory above, of which only one entry matters; in a sticky one
        (/tmp) other users cannot replace the entry.
    :returns: for example "belongs to deploy"; empty if nobody else may.
    """
    allowed = frozenset((ROOT, os.geteuid(), *trusted))
    if status.st_uid not in allowed:
        return "belongs to %s" % name_of(status.st_uid)
    if is_parent and status.st_mode & stat.S_ISVTX:
        return ""
    if status.st_mode & stat.S_IWOTH:
        return "may be written to by everybody"
    if status.st_mode & stat.S_IWGRP and not _is_private(status.st_gid, allowed):
        return "may be written to by the group %s" % _name_of_group(status.st_gid)
    return ""


@functools.lru_cache(maxsize=None)
def _is_private(group: int, allowed: FrozenSet[int]) -> bool:
    """Tell whether a group has only allowed users, as far as users can be listed."""
    if group == ROOT:
        return True
    try:
        names = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    users = pwd.getpwall()
    members = {user.pw_uid for user in users if user.pw_gid == group or user.pw_name in names}
    strangers = names - {user.pw_name for user in users}
    return members <= allowed and not strangers


def name_of(user: int) -> str:
    """Return the name of a user of this machine, or the number if it has no name."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _name_of_group(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)
