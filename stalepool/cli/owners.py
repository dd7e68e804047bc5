"""Whose files these are: what the injected process imports must be in nobody else's hands."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import stat
from pathlib import Path
from typing import Optional

ROOT = 0


def first_in_other_hands(directory: Path) -> Optional[Path]:
    """The first of all in a directory, itself and its parents that another user may change.

    Reads the status of every file in it, some 200 for the package: for a start by hand or by a
    unit, not for every Python process. What vanishes meanwhile, or leads nowhere, is passed over.

    :param directory: an absolute path without symbolic links.
    """
    for place in [directory, *sorted(directory.rglob("*"))]:
        status = _status_of(place)
        if status is not None and is_in_other_hands(status):
            return place
    for parent in directory.parents:
        status = _status_of(parent)
        if status is not None and is_in_other_hands(status, is_parent=True):
            return parent
    return None


def is_in_other_hands(status: os.stat_result, is_parent: bool = False) -> bool:
    """Whether somebody else than root and the effective user may change what this is the status of.

    That is so if somebody else owns it, if everybody may write to it, or if its group may and is
    not a private one: with the umask of 002 that many distributions set, a user's files belong to,
    and may be written to by, a group of which he is the only member. Access control lists are seen
    as far as Linux shows them in the group's permissions.

    :param is_parent: only one entry of this directory counts, and in a sticky one (/tmp) others
        cannot replace that.
    """
    if status.st_uid not in (ROOT, os.geteuid()):
        return True
    if is_parent and status.st_mode & stat.S_ISVTX:
        return False
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)


@functools.lru_cache(maxsize=None)
def _is_private(group: int) -> bool:
    """Whether root and the effective user are all who are in it, as far as users can be listed."""
    if group == ROOT:
        return True
    try:
        names = set(grp.getgrgid(group).gr_mem)
    except KeyError:
        return False
    users = pwd.getpwall()
    members = {user.pw_uid for user in users if user.pw_gid == group or user.pw_name in names}
    strangers = names - {user.pw_name for user in users}
    return members <= {ROOT, os.geteuid()} and not strangers


def _status_of(place: Path) -> Optional[os.stat_result]:
    try:
        return place.stat()
    except OSError:
        return None
