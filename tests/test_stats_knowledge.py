"""What is learnt of an origin: each fact by its own rule, and believed for its own time."""

import pytest

from breaks import breaks
from stalepool.stats import MOST_MOVES_A_MINUTE, Knowledge


@pytest.fixture
def clock():
    """The seconds that ``monotonic()`` tells; set by hand."""
    now = [1000.0]
    with breaks("clock of what was learnt", by=lambda: now[0]):
        yield now


def ends(*ages_s, every_s=100.0):
    return [(every_s, Knowledge.note_fin, age_s) for age_s in ages_s]


def lives(idle_s, later_s=0.0):
    return [(later_s, Knowledge.note_alive, idle_s)]


#: what happens to an origin's connections, and the idle limit that is believed after each
LIMITS = {
    "three ages that agree": (
        ends(60.0, 62.0, 61.0, 59.0, 60.0, 60.0, 60.0),
        [None, None, 60.0, 59.0, 59.0, 59.0, 60.0],
    ),
    # the longer one may be of a connection that was looked at long after its end
    "of two ages that disagree the shorter counts": (
        ends(2.0, 7.0, 2.1, 12.0, 2.0, 7.0, 1.2, 1.2, 1.2),
        [None, None, None, None, 2.0, 2.0, None, None, 1.2],
    ),
    # the idle time of a client's, at which it has met restarts, is an upper bound
    "a connection that outlives it by a second disproves it": (
        ends(60.0, 60.0, 60.0) + lives(60.9) + lives(61.1) + ends(99.0, 99.0, 99.0),
        [None, None, 60.0, 60.0, None, None, None, 99.0],
    ),
    # a server was restarted, or a balancer
    "connections that end together are one event": (ends(*[60.0] * 10, every_s=0.01), [None] * 10),
    # those that had their last answers together, too
    "so are those of nine tenths of the idle time": (
        ends(60.0, 60.0) + ends(60.0, every_s=53.0) + ends(60.0, every_s=2.0),
        [None, None, None, 60.0],
    ),
    # the server closes after so many answers: every connection ends at an age near 0
    "an age below a second is none": (ends(0.01, 0.99, 0.99, 0.99, every_s=2.0), [None] * 4),
    "it is believed for an hour": (
        ends(60.0, 60.0, 60.0, every_s=1000.0) + lives(0.1, 1000.0) + lives(0.1, 601.0),
        [None, None, 60.0, 60.0, None],
    ),
}


@pytest.mark.parametrize("events, expected", LIMITS.values(), ids=LIMITS)
def test_an_idle_limit(events, expected, clock):
    knowledge, limits = Knowledge(), []
    for later_s, note, age_s in events:
        clock[0] += later_s
        note(knowledge, age_s)
        limits.append(knowledge.observed_idle_limit_s)
    assert limits == expected


#: what is learnt -> (how, for how long it is believed, in seconds)
FACTS = {
    "swallows_probes": (Knowledge.note_probes_swallowed, 86400.0),
    "moves_stopped_for_s": (Knowledge.stop_moves, 300.0),
    "window_is_open": (lambda knowledge: setattr(knowledge, "window_until", 1300.0), 300.0),
}


def test_moves_that_were_stopped_are_resumed_and_those_of_too_many_are_not(clock):
    knowledge = Knowledge()
    knowledge.stop_moves()
    knowledge.resume_moves()
    assert knowledge.moves_stopped_for_s == 0
    for _ in range(MOST_MOVES_A_MINUTE):
        knowledge.note_move()
    knowledge.resume_moves()
    assert knowledge.moves_stopped_for_s == 60


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_is_believed_for_its_time(fact, clock):
    learn, seconds = FACTS[fact]
    knowledge = Knowledge()
    assert not getattr(knowledge, fact)
    learn(knowledge)
    assert getattr(knowledge, fact) in (True, seconds)
    clock[0] += seconds - 1
    assert getattr(knowledge, fact) == 1
    clock[0] += 2
    assert getattr(knowledge, fact) == 0


def test_moves_near_an_idle_limit_do_not_use_up_the_ports(clock):
    """Of each, the kernel keeps one for a minute."""
    knowledge, waits = Knowledge(), []
    for _ in range(MOST_MOVES_A_MINUTE + 1):
        clock[0] += 0.5
        knowledge.note_move()
        waits.append(knowledge.moves_stopped_for_s)
    assert waits == [0] * (MOST_MOVES_A_MINUTE - 1) + [31, 30]
    clock[0] += 30
    knowledge.note_move()
    assert knowledge.moves_stopped_for_s == 0
    for _ in range(MOST_MOVES_A_MINUTE - 1):
        knowledge.note_move()
    assert knowledge.moves_stopped_for_s == 60
    knowledge.stop_moves()
    for _ in range(MOST_MOVES_A_MINUTE):  # those that had begun: the longer pause counts
        knowledge.note_move()
    assert knowledge.moves_stopped_for_s == 300


def test_the_later_word_on_probes_counts(clock):
    knowledge, nothing = Knowledge(), lambda: None
    swallowed, answered = knowledge.note_probes_swallowed, knowledge.note_probe_answered
    said = {"unknown": nothing, "swallowed": swallowed, "answered": answered}
    for word in (*said, "swallowed"):
        said[word]()
        assert knowledge.as_dict()["keepalive_probes"] == word
    clock[0] += 86401
    assert knowledge.as_dict()["keepalive_probes"] == "unknown"


def test_the_untrue_limits_of_several_backends():
    """What disproves one disproves the shorter ones."""
    knowledge, untrue = Knowledge(), []
    for limit_s in (2.0, 1.0, 2.0, 3.0, 3.0, 3.0, 1.0, 1.0, 1.0):
        knowledge.note_outlived(limit_s)
        untrue.append(knowledge.untrue_limit_s)
    assert untrue == [0, 0, 2, 2, 2, 3, 3, 3, 3]
