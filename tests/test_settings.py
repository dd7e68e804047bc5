"""Settings: where each is from, what each takes, and which contradict one another."""

import enum
import math

import pytest

from stalepool.settings import PREFIX, SETTINGS, Seconds, Settings, SettingsError, contradictions


@pytest.mark.parametrize("misspell", [lambda s: s[:-1], lambda s: s + "x", lambda s: s[1:] + s[0]])
def test_the_nearest_name_is_given(misspell):
    for name in SETTINGS:
        variable = PREFIX + name.upper()
        misspelled = PREFIX + misspell(name.upper())
        with pytest.raises(SettingsError, match="the nearest is %s, which takes" % name):
            Settings(**{misspell(name): 1})
        with pytest.raises(SettingsError, match="%s='1' .* %s, which" % (misspelled, variable)):
            Settings.from_environ({misspelled: "1"})


def test_everything_that_is_wrong_is_said_at_once_in_one_line():
    variables = {"STALEPOOL_MODE": "junk", "STALEPOOL_": "x", "STALEPOOL_\n\u2028": "\n"}
    with pytest.raises(SettingsError) as refused:
        Settings.from_environ(variables, keepalive_count=0, idle=3, enabled="no!")
    (said,) = str(refused.value).splitlines()
    wrong = ("MODE='junk'", "keepalive_count=0", "idle=3", "enabled='no!'", r"\n\u2028'='\n'")
    for part in (*wrong, "active or audit", "1 to 127", "1, true"):
        assert part in said


def test_a_setting_says_where_it_is_from_and_a_keyword_goes_before_its_variable():
    """Before a wrong one, too."""
    variables = {"STALEPOOL_MODE": "audit", "STALEPOOL_SILENCE_S": "junk"}
    explained = Settings.from_environ(variables, silence_s=20).explained()
    assert list(explained) == list(SETTINGS)
    assert explained.pop("mode") == {"value": "audit", "from": "STALEPOOL_MODE"}
    assert explained.pop("silence_s") == {"value": 20.0, "from": "install()"}
    assert {each["from"] for each in explained.values()} == {"default"}


def test_the_kill_switch_beats_whatever_else_is_wrong():
    variables = {"STALEPOOL_MODE": "junk", "STALEPOOL_X": "", "STALEPOOL_ENABLED": "0"}
    assert not Settings.from_environ(variables).enabled
    assert not Settings.from_environ({**variables, "STALEPOOL_ENABLED": "1"}, enabled=False).enabled
    with pytest.raises(SettingsError):  # but not what the program itself asks for
        Settings.from_environ(variables, mode="junk")


def test_settings_are_frozen_compared_and_shown_by_their_values():
    one, same, other = Settings(silence_s=3), Settings(silence_s="3"), Settings()
    assert one == same != other and len({one, same, other}) == 2
    assert one != one.as_dict()
    assert one.as_dict() == {**other.as_dict(), "silence_s": 3}
    assert eval(repr(one), {"Settings": Settings}) == one
    for name in "mode", "x":
        with pytest.raises(AttributeError, match="frozen"):
            setattr(one, name, 1)
    assert one == same


def test_every_setting_is_annotated_documented_and_has_its_unit_in_its_name():
    assert [*SETTINGS, "is_audit", "_sources"] == list(Settings.__annotations__)
    for name, (kind, default, meaning) in SETTINGS.items():
        assert kind.parse(default) == default
        assert meaning and kind.accepts
        assert isinstance(kind, Seconds) <= name.endswith("_s")


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ({"keepalive": "off", "keepalive_idle_s": 9}, "keepalive=off"),
        ({"replay": "off", "silence_s": 5}, "replay=off"),
        ({"replay": "off", "replay_within_s": 5}, "replay=off"),
        ({"silence_s": 13}, "silence_s is less"),
        ({"silence_s": 14}, ""),
        ({"silence_s": 5, "replay": "safe", "keepalive": "off"}, ""),
        ({"keepalive_interval_s": 5}, "silence_s is less"),
        ({"max_idle_s": 3, "nonidempotent_max_idle_s": 4}, "nonidempotent_max_idle_s is more"),
        ({"max_idle_s": 4, "nonidempotent_max_idle_s": 4}, ""),
    ],
)
def test_contradictions(settings, begins):
    found = contradictions(Settings(**settings))
    assert len(found) == bool(begins) and "".join(found).startswith(begins)


# -- kinds: a value comes out as it was meant, or is refused in so many words ----------------------

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
