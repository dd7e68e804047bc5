"""Settings: whatever is put in comes out as it was meant, or is refused in so many words."""

from __future__ import annotations

import functools
import math
import re
from typing import Any, Callable, Dict, List, Set

import pytest
from hypothesis import HealthCheck, assume, example
from hypothesis import given as hypothesis_given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from conftest import child
from stalepool.settings import (
    PREFIX,
    SETTINGS,
    Choice,
    Directory,
    Flag,
    Seconds,
    Settings,
    SettingsError,
    Whole,
    contradictions,
)
from worlds import WITH_TESTS

# the same examples on each run, and no haste: other tests may be running on the same machine
_profile = hypothesis_settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)


def given(*args: Any, **kwargs: Any) -> Callable[..., Any]:
    return lambda test: _profile(hypothesis_given(*args, **kwargs)(test))


def in_other_digits(test: Any) -> Any:
    """Numbers for int(), but not in ASCII digits alone, which no setting takes."""
    for number in ("1_5", "\u0661\u0665", "\uff11\uff15", "1\u0665"):
        test = example(number)(test)
    return test


# -- what a setting takes, said once more and otherwise than in settings.py


def kind_of(name: str) -> Set[Any]:
    """The kind of a setting; of a duration also the words that it takes."""
    kind = SETTINGS[name][0]
    return {(type(kind), kind.words if isinstance(kind, Seconds) else ())}


def good_values(name: str) -> st.SearchStrategy[Any]:
    kind = SETTINGS[name][0]
    if isinstance(kind, Flag):
        return st.booleans()
    if isinstance(kind, Choice):
        return st.sampled_from(kind.words)
    if isinstance(kind, Whole):
        return st.integers(kind.lowest, kind.highest)
    if isinstance(kind, Directory):  # without letters, whose case would matter
        return st.sampled_from([None, "auto", "/", "/1/2"])
    assert isinstance(kind, Seconds)
    seconds = st.floats(kind.lowest, kind.highest)
    words = st.sampled_from([None if word == "off" else word for word in kind.words or ("off",)])
    return seconds | words if kind.words else seconds


def is_good(name: str, value: object) -> bool:
    kind = SETTINGS[name][0]
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(kind, Flag):
        words = ["1", "true", "yes", "on", "0", "false", "no", "off"]
        return isinstance(word, bool) or (isinstance(word, int) and word in (0, 1)) or word in words
    if isinstance(kind, Choice):
        return word in kind.words
    if isinstance(kind, Directory):
        is_path = isinstance(word, str) and re.fullmatch("/[^\0]*", word, re.DOTALL)
        return word is None or word in ("auto", "off") or bool(is_path)
    if isinstance(word, bool) or not isinstance(word, (int, float, str, type(None))):
        return False
    if isinstance(kind, Seconds) and (word is None or word in ("off", "auto")):
        return (word or "off") in kind.words
    if isinstance(word, str) and not re.fullmatch("[ -^`-~]*", word):  # ASCII without "_"
        return False
    try:
        number = float(word) if isinstance(kind, Seconds) else int(str(word))
    except (ValueError, OverflowError):
        return False
    return kind.lowest <= number <= kind.highest


GOOD = st.fixed_dictionaries({}, optional={name: good_values(name) for name in SETTINGS})

JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.lists(st.integers())
    | st.dictionaries(st.text(), st.none())
    | st.builds(object)
    | st.sampled_from(["", " ", "nan", "inf", "-1", "1e999", "0x10", "1,5", "15s", "None", "off "])
)


def as_variables(settings: Dict[str, Any]) -> Dict[str, str]:
    """The same settings as an operator writes them down."""
    return {
        PREFIX + name.upper(): "off" if value is None else str(value)
        for name, value in settings.items()
    }


@given(GOOD)
def test_keywords_and_variables_mean_the_same(chosen: Dict[str, Any]) -> None:
    by_keyword = Settings(**chosen)
    by_variable = Settings.from_environ({"HOME": "/", **as_variables(chosen)})
    assert by_keyword.as_dict() == {**Settings().as_dict(), **chosen}
    if chosen.get("enabled") is not False:
        assert by_variable == by_keyword
    assert by_variable == Settings.from_environ(as_variables(by_variable.as_dict()))


@given(GOOD, st.sampled_from([str.upper, str.title, lambda word: "\t %s \n" % word]))
def test_case_and_space_around_a_value_do_not_matter(chosen: Dict[str, Any], change: Any) -> None:
    variables = as_variables(chosen)
    changed = {name: change(value) for name, value in variables.items()}
    assert Settings.from_environ(changed) == Settings.from_environ(variables)


def assert_taken_or_refused(make: Any, name: str, said: str, value: object) -> None:
    if is_good(name, value):
        make()
        return
    with pytest.raises(SettingsError) as refused:
        make()
    words = "%s=%r is not accepted: it takes %s"
    assert str(refused.value) == words % (said, value, SETTINGS[name][0].accepts)


@pytest.mark.each_value(by=kind_of)
@pytest.mark.parametrize("name", SETTINGS)
@given(value=JUNK)
@example(math.nan)
@in_other_digits
def test_a_value_is_taken_or_refused_in_so_many_words(name: str, value: object) -> None:
    assert_taken_or_refused(lambda: Settings(**{name: value}), name, name, value)


@pytest.mark.each_value(by=kind_of)
@pytest.mark.parametrize("name", SETTINGS)
@given(value=st.text(st.characters(blacklist_characters="\0")))
@example("")
@in_other_digits
def test_a_variable_is_taken_or_refused_in_so_many_words(name: str, value: str) -> None:
    variable = PREFIX + name.upper()
    make = functools.partial(Settings.from_environ, {variable: value})
    assert_taken_or_refused(make, name, variable, value)


@given(st.text(), st.text(st.characters(blacklist_characters="\0")))
def test_an_unknown_variable_is_refused(suffix: str, value: str) -> None:
    variable = PREFIX + suffix
    assume(variable not in as_variables(Settings().as_dict()))
    with pytest.raises(SettingsError) as refused:
        Settings.from_environ({variable: value})
    assert repr(value) in str(refused.value)
    assert any(PREFIX + name.upper() in str(refused.value) for name in SETTINGS)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.each_value
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("misspell", [lambda s: s[:-1], lambda s: s + "x", lambda s: s[1:] + s[0]])
def test_the_nearest_name_is_given(name: str, misspell: Any) -> None:
    with pytest.raises(SettingsError, match="the nearest is %s, which takes" % name):
        Settings(**{misspell(name): 1})
    variable = PREFIX + name.upper()
    with pytest.raises(SettingsError, match="the nearest is %s, which takes" % variable):
        Settings.from_environ({PREFIX + misspell(name.upper()): "1"})


def test_a_directory_keeps_its_case_and_its_place() -> None:
    chosen = Settings.from_environ({"STALEPOOL_STATUS_DIR": " /Srv/Status dir "})
    assert chosen.status_dir == "/Srv/Status dir"
    with pytest.raises(SettingsError, match="STALEPOOL_STATUS_DIR='run' is not accepted: it takes"):
        Settings.from_environ({"STALEPOOL_STATUS_DIR": "run"})


def test_a_setting_says_where_it_is_from() -> None:
    chosen = Settings.from_environ({"STALEPOOL_MODE": "audit"}, silence_s=20)
    explained = chosen.explained()
    assert list(explained) == list(SETTINGS)
    assert explained["mode"] == {"value": "audit", "from": "STALEPOOL_MODE"}
    assert explained["silence_s"] == {"value": 20.0, "from": "install()"}
    assert {explained[name]["from"] for name in set(SETTINGS) - {"mode", "silence_s"}} == {
        "default"
    }


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environ({"STALEPOOL_MODE": "junk"}, keepalive_count=0, idle=3, enabled="no!")
    for part in ("MODE='junk'", "active or audit", "keepalive_count=0", "1 to 127", "idle=3"):
        assert part in str(refused.value)
    assert "enabled='no!'" in str(refused.value) and "1, true" in str(refused.value)


@given(GOOD, GOOD)
def test_a_keyword_goes_before_its_variable(
    keywords: Dict[str, Any], variables: Dict[str, Any]
) -> None:
    """A wrong one, too."""
    variables = {**variables, "enabled": True}
    wrong = dict.fromkeys(as_variables(keywords), "junk")
    chosen = Settings.from_environ({**as_variables(variables), **wrong}, **keywords)
    assert chosen == Settings(**{**variables, **keywords})


@given(GOOD, st.dictionaries(st.text().map(PREFIX.__add__), st.text()))
def test_the_kill_switch_beats_whatever_else_is_wrong(
    good: Dict[str, Any], junk: Dict[str, str]
) -> None:
    variables = {**as_variables(good), **junk, "STALEPOOL_ENABLED": "0"}
    assert not Settings.from_environ(variables).enabled
    assert not Settings.from_environ({**variables, "STALEPOOL_ENABLED": "1"}, enabled=False).enabled
    with pytest.raises(SettingsError):  # but not what the program itself asks for
        Settings.from_environ(variables, mode="junk")


@given(GOOD, GOOD)
def test_equal_settings_are_one_key(one: Dict[str, Any], other: Dict[str, Any]) -> None:
    a, b = Settings(**one), Settings(**other)
    assert (a == b) == (a.as_dict() == b.as_dict())
    assert a == Settings(**one) and hash(a) == hash(Settings(**one))
    assert len({a, b, Settings(**one)}) == (1 if a == b else 2)
    assert a != a.as_dict()


@given(GOOD)
def test_settings_show_themselves(chosen: Dict[str, Any]) -> None:
    settings = Settings(**chosen)
    assert eval(repr(settings), {"Settings": Settings}) == settings


@pytest.mark.parametrize("name", ["mode", "other"])
def test_settings_are_frozen(name: str) -> None:
    settings = Settings()
    with pytest.raises(AttributeError, match="frozen"):
        setattr(settings, name, 1)
    with pytest.raises(AttributeError, match="frozen"):
        delattr(settings, name)
    assert settings == Settings()


def test_every_setting_is_annotated_documented_and_has_its_unit_in_its_name() -> None:
    assert list(SETTINGS) == [n for n in Settings.__annotations__ if not n.startswith("_")]
    for name, (kind, default, meaning) in SETTINGS.items():
        assert kind.parse(default) == default
        assert meaning and kind.accepts
        assert isinstance(kind, Seconds) <= name.endswith("_s")


@pytest.mark.full
def test_what_is_exported_does_not_reach_the_tests_themselves() -> None:
    script = "import conftest, stalepool; print(stalepool.is_installed())"
    done = child("-c", script, env={**WITH_TESTS, "STALEPOOL_ENABLED": "0", "STALEPOOL_MODE": "x"})
    assert (done.stdout, done.stderr) == ("True\n", "")


WORDS = {
    **dict.fromkeys(["1", "true", "yes", "on", " ON "], True),
    **dict.fromkeys(["0", "false", "no", "off"], False),
}


@pytest.mark.parametrize("word", WORDS)
def test_each_word_of_a_flag(word: str) -> None:
    assert Settings(presend_check=word).presend_check is WORDS[word]


# -- settings that contradict one another


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ({}, []),
        ({"keepalive": "off"}, []),
        ({"keepalive": "off", "keepalive_idle_s": 9}, ["keepalive=off"]),
        ({"replay": "off"}, []),
        ({"replay": "off", "silence_s": 5}, ["replay=off"]),
        ({"replay": "off", "replay_within_s": 5}, ["replay=off"]),
        ({"silence_s": 5}, ["silence_s is less"]),
        ({"silence_s": 8}, []),
        ({"silence_s": 5, "replay": "safe", "keepalive": "off"}, []),
        ({"keepalive_interval_s": 5}, ["silence_s is less"]),
        ({"max_idle_s": 3, "nonidempotent_max_idle_s": 4}, ["nonidempotent_max_idle_s is more"]),
        ({"max_idle_s": 4, "nonidempotent_max_idle_s": 4}, []),
        ({"max_idle_s": 4}, []),
    ],
)  # fmt: skip
def test_contradictions(settings: Dict[str, Any], begins: List[str]) -> None:
    found = contradictions(Settings(**settings))
    assert [text[: len(begin)] for text, begin in zip(found, begins)] == begins
    assert len(found) == len(begins)
