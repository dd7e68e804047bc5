"""The kinds of settings: a value comes out as it was meant, or is refused in so many words."""

import enum
import math

import pytest

from stalepool.settings import PREFIX, SETTINGS, Settings, SettingsError

#: one setting of each kind -> what is put in, and what comes out
TAKEN = {
    "presend_check": [
        *((word, True) for word in (True, 1, "1", "true", "yes", "on", "\t ON \n")),
        *((word, False) for word in (False, 0, "0", "false", "no", "off", "Off")),
    ],
    "mode": [
        *(("audit", "audit"), ("\t Active\n", "active")),
        (enum.Enum("Mode", {"AUDIT": "audit"}, type=str).AUDIT, "audit"),
    ],
    "keepalive_count": [(1, 1), (127, 127), ("127", 127), (" 5 ", 5)],
    "replay_within_s": [(0, 0.0), (3600, 3600.0), ("1e1", 10.0), (" 0.5 ", 0.5)],
    "max_idle_s": [(0.001, 0.001), (86400, 86400.0), (None, None), (" Off", None)],
    "nonidempotent_max_idle_s": [("AUTO ", "auto"), ("off", None), ("7", 7.0)],
    "status_dir": [
        *((None, None), ("OFF", None), (" Auto ", "auto"), ("/", "/"), ("/auto", "/auto")),
        (" /Srv/Status dir ", "/Srv/Status dir"),
    ],
}

#: numbers for int(), but not in ASCII digits alone
ODD = ("1_5", "\u0661\u0665", "\uff11\uff15", "1\u0665")
NO_NUMBERS = ("", " ", "nan", "-1", "0x10", "1,5", "15s", "None", b"1", True, [], object())

#: what is refused
REFUSED = {
    "presend_check": [None, 2, 1.0, "", "maybe", b"1", []],
    "mode": [None, 1, "", "activ", "off", b"audit", ["audit"]],
    "keepalive_count": [*ODD, *NO_NUMBERS, None, 0, 128, "128", 1.5, "1.5", "off", math.nan],
    "replay_within_s": [*ODD, *NO_NUMBERS, None, "off", -0.1, 3601, 10**400, "1e999", math.nan],
    "max_idle_s": [0, 86401, math.nan, math.inf, "auto"],
    "nonidempotent_max_idle_s": [-1, "automatic", True],
    "status_dir": ["", "run", "/a\0b", 7, b"/", True],
}


def roads(name, value):
    """Each way to give a value: what the setting is called there, and what makes settings of it."""
    yield name, lambda: Settings(**{name: value})
    variable = PREFIX + name.upper()
    if isinstance(value, str):
        yield variable, lambda: Settings.from_environ({"HOME": "/", variable: value})


@pytest.mark.parametrize("name", TAKEN)
def test_a_value_is_taken_as_it_was_meant(name):
    for value, expected in TAKEN[name]:
        for _, make in roads(name, value):
            chosen = make()
            found = getattr(chosen, name)
            assert (found, type(found)) == (expected, type(expected)), value
            settings = chosen.as_dict().items()  # as an operator writes them down
            written = {PREFIX + n.upper(): "off" if v is None else str(v) for n, v in settings}
            assert chosen == Settings.from_environ(written)


@pytest.mark.parametrize("name", REFUSED)
def test_a_value_is_refused_in_so_many_words(name):
    words = "%s=%r is not accepted: it takes %s"
    for value in REFUSED[name]:
        for said, make in roads(name, value):
            with pytest.raises(SettingsError) as refused:
                make()
            assert str(refused.value) == words % (said, value, SETTINGS[name][0].accepts)
