"""Scripts of a fault server: their steps, and which step comes next."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Callable, Iterable, NamedTuple, Sequence, Union

from stalepool_testing.arguments import Checked, got
from stalepool_testing.messages import Request

if TYPE_CHECKING:
    from stalepool_testing.channel import Channel
    from stalepool_testing.exchange import Exchange


class Step(Checked):
    """One line of a script."""

    #: False if the connection is over after this step, so that no idle step can follow
    keeps_connection = True
    belongs = "in the script"


class AnswerStep(Step):
    """A step that says what happens to the next request."""

    def answer(self, exchange: Exchange) -> None:
        """Deal with a request whose head has been read.

        :param exchange: the request, its journal entry and its connection.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method answer(exchange)")


class IdleStep(Step):
    """A step that says what happens to the connection between two requests."""

    def idle(self, channel: Channel) -> bool:
        """Do the step to the connection; the journal notes it if this returns True.

        :returns: False if a request came before it could be done.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method idle(channel)")

    def afterwards(self, channel: Channel) -> None:
        """Do what comes after the step; does nothing if the next request is to be served."""


class Turn(NamedTuple):
    """The answer step for one request, and the idle steps for its connection."""

    answer: AnswerStep
    idle: list[IdleStep]


StepOrSteps = Union[Step, Sequence[Step]]
ScriptLike = Union[Iterable[Step], Callable[[Request], StepOrSteps]]


class Script:
    """Deals out turns: from a list, in order across connections, or from a function.

    :ivar steps: the steps of the list, and the default.
    :ivar opening: the idle steps before the first answer, for the first connection.
    :raises TypeError: it is no script, or the default is no answer step.
    :raises ValueError: a step stands where it cannot be done.
    """

    def __init__(self, script: ScriptLike, default: AnswerStep) -> None:
        if not isinstance(default, AnswerStep):
            raise TypeError(f"default takes an answer step such as Reset(), {got(default, Step)}")
        if isinstance(script, (Step, type)) or not (callable(script) or _is_iterable(script)):
            raise TypeError(
                f"script takes a list of steps such as [Respond(200)], or a function of the "
                f"request, {got(script, Step)}"
            )
        self._default = default
        self._choose = script if callable(script) else None
        steps = () if callable(script) else tuple(script)
        self.steps = (*steps, default)
        before, *turns = _turns(steps, default)
        self.opening = before.idle
        self._turns = deque(turns)

    @property
    def left(self) -> list[Turn]:
        """The turns that no request has met yet."""
        return list(self._turns)

    def answer_step(self, number: int) -> AnswerStep | None:
        """Return the answer step for the request of a number, if that is known beforehand."""
        if self._choose is not None:
            return None
        steps = [step for step in self.steps if isinstance(step, AnswerStep)]
        return steps[min(number, len(steps) - 1)]

    def idle_step(self, number: int) -> IdleStep | None:
        """Return the idle step of a number in the list, if there are so many."""
        steps = [step for step in self.steps if isinstance(step, IdleStep)]
        return steps[number] if number < len(steps) else None

    def next(self, request: Request) -> Turn:
        """Return the turn of this request.

        :raises TypeError, ValueError: a script function has returned something else than steps.
        """
        if self._choose is None:
            try:
                return self._turns.popleft()
            except IndexError:
                return Turn(self._default, [])
        chosen = self._choose(request)
        if not (isinstance(chosen, Step) or _is_iterable(chosen)):
            raise TypeError(f"a script function returns a step or a list, {got(chosen, Step)}")
        turns = _turns((chosen,) if isinstance(chosen, Step) else chosen, self._default)
        return turns[1] if len(turns) > 1 else turns[0]


def _turns(steps: Iterable[Step], default: AnswerStep) -> list[Turn]:
    """Return the turns of some steps, behind one of the default, with the idle steps before all."""
    turns = [Turn(default, [])]
    before: Step | None = None
    for step in steps:
        if isinstance(step, AnswerStep):
            turns.append(Turn(step, []))
        elif not isinstance(step, IdleStep):
            raise TypeError(f"a script is made of steps such as Respond(200), {got(step, Step)}")
        elif before is not None and not before.keeps_connection:
            raise ValueError(f"{before} leaves no connection for {step}")
        else:
            turns[-1].idle.append(step)
        before = step
    return turns


def _is_iterable(value: object) -> bool:
    return hasattr(type(value), "__iter__") and not isinstance(value, (str, bytes))
