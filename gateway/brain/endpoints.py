"""Several Tritons: which one a request goes to, and which of them are there.

A request goes to the one with the fewest under way. One that cannot be reached is left out until it says that it is
ready again; a request that met it goes to another one, or where none is there waits for one to come back.
"""

import hashlib
from collections.abc import Mapping, Sequence

from gateway.brain.asking import Asking, Replay
from gateway.brain.presence import RESTART_S, Endpoint, Presence
from gateway.errors import GoneError, LateError, Refusal
from gateway.triton.connection import Body
from gateway.triton.upstream import Answer, Upstream

# What one says for whom another one may do it: core/src/server.cc with 503, model_repository_manager.cc with 400.
_STOPPING = (b"Server exiting", b"Server not ready", b"Server is stopping")
_NOT_HERE = b"Request for unknown model"
_DEAD_WORKER = (b"Stub process", b"is not healthy")  # both of it, with 500: python_backend/src/stub_launcher.cc


class Endpoints(Presence):
    """The Tritons behind the gateway.

    Args:
        most_kept: Bytes of a streamed body that are kept until its answer begins, to be sent to another Triton.
        restart_s: How long all of them may be gone so that requests wait; later they are told at once.
    """

    def __init__(
        self, upstreams: Sequence[Upstream], most_kept: int = 1024 * 1024, restart_s: float = RESTART_S
    ) -> None:
        super().__init__(upstreams, restart_s)
        self._most_kept = most_kept
        self._turn = 0

    async def infer(
        self, path: str, headers: Mapping[str, str], body: Body, deadline: float, sequence: str | None = None
    ) -> tuple[Endpoint, Answer]:
        """Ask one, and another one if that is gone, or the same once it is back.

        Args:
            sequence: All requests with the same one go to one Triton, which keeps its state, and nowhere else.

        Raises:
            Refusal: 503: none is there and none comes back in time, or the one that was asked went with a body that
                was not kept, or a second one went with this request.
            UpstreamError: another one than GoneError, which says nothing of the others.
        """
        asking = Asking(path, headers, Replay(body, self._most_kept, once=sequence is not None), deadline, sequence)
        while True:
            endpoint = await self._next(asking)
            if (answer := await self._try(endpoint, asking)) is not None:
                return endpoint, answer

    async def _next(self, asking: Asking) -> Endpoint:
        """Choose whom to ask next; where all were asked, wait for one to come back."""
        while True:
            name = asking.sequence
            endpoint = self._keeper(name, asking.tried) if name else self._choose(asking.tried)
            if endpoint is not None:
                asking.tried.add(id(endpoint))
                return endpoint
            if name or not await self.back(asking.deadline):
                raise _gone("none of the servers behind the gateway can be reached")
            asking.tried.clear()
            asking.waited = True

    async def _try(self, endpoint: Endpoint, asking: Asking) -> Answer | None:
        """Ask this one; None if another one, or the same later, may do better."""
        try:
            answer = await self._ask(endpoint, asking)
        except GoneError as error:
            if error.was_kept:  # that a kept connection was closed says nothing of the server
                endpoint.upstream.close()
            elif not error.was_left:
                self.mark_down(endpoint, str(error), silent=error.was_silence)
            asking.deaths += error.was_sent
            if not asking.may_be_sent_again:
                raise _gone("the one that had the request went, and it is not sent to another one") from None
            return None
        except LateError:
            if asking.waited:  # most of its time went by while there was nobody
                raise _gone("the servers behind the gateway were back too late") from None
            if not endpoint.is_up:
                raise _gone("the one that has the request does not say anything any more") from None
            raise
        if answer.status != 200 and await self._is_for_another(endpoint, answer, asking) and asking.may_be_sent_again:
            answer.release()
            return None
        self.mark_up(endpoint, answer.asked_at)
        return answer

    async def _ask(self, endpoint: Endpoint, asking: Asking) -> Answer:
        """Ask one; where it had closed a connection that was kept, ask it again on another."""
        upstream = endpoint.upstream
        anew = asking.sequence is not None  # there is no second try
        try:
            return await self._sent(upstream, asking, anew=anew)
        except GoneError as error:
            if not (error.was_kept and asking.replay.is_possible):
                raise
        upstream.close()  # the others that are kept are no younger
        try:
            return await self._sent(upstream, asking, anew=True)
        except GoneError as error:
            error.was_sent = True  # on the kept one: it has ended since
            raise

    async def _sent(self, upstream: Upstream, asking: Asking, *, anew: bool) -> Answer:
        self.watch()
        body = asking.replay.again()
        return await upstream.infer(
            asking.path, asking.headers, body, asking.deadline, anew=anew, may_leave=asking.may_leave
        )

    async def get(self, path: str, deadline: float) -> Answer:
        """Ask any of them what it says of itself, and another one where it is stopping, or does not know the model.

        Raises:
            UpstreamError: none can be reached.
        """
        asking = Asking(path, {}, Replay(b"", 0, once=False), deadline)
        while (endpoint := self._choose(asking.tried)) is not None:
            asking.tried.add(id(endpoint))
            try:
                self.watch()
                answer = await endpoint.upstream.get(path, deadline)
            except GoneError as error:
                if not error.was_left:
                    self.mark_down(endpoint, str(error), silent=error.was_silence)
                continue
            except LateError:
                if endpoint.is_up:
                    raise
                continue
            if answer.status != 200 and await self._is_for_another(endpoint, answer, asking):
                answer.release()
                continue
            self.mark_up(endpoint, answer.asked_at)
            return answer
        raise GoneError("none of the servers behind the gateway can be reached")

    def _choose(self, tried: set[int]) -> Endpoint | None:
        left = [endpoint for endpoint in self.all if id(endpoint) not in tried and not endpoint.is_silent]
        up = [endpoint for endpoint in left if endpoint.is_up]
        # Where none is known to be up, those that were down are asked: one may be back since the last look.
        some = [endpoint for endpoint in up if endpoint.looking is None] or up or left
        if not some:
            return None
        chosen = min(some, key=lambda endpoint: (endpoint.upstream.in_flight, endpoint.turn))
        self._turn += 1
        chosen.turn = self._turn
        return chosen

    def _keeper(self, sequence: str, tried: set[int]) -> Endpoint | None:
        """Return who has the state of a sequence: nobody else could go on with it."""
        weigh = hashlib.blake2b
        found = max(self.all, key=lambda each: weigh(f"{sequence} {each.upstream}".encode()).digest())
        return None if id(found) in tried else found

    async def _is_for_another(self, endpoint: Endpoint, answer: Answer, asking: Asking) -> bool:
        """Whether a refusal is of this Triton alone, or of this moment."""
        said = await answer.reason()
        if answer.status == 503 and any(words in said for words in _STOPPING):
            self.mark_down(endpoint, "it is stopping")
            return True
        if answer.status == 500 and all(words in said for words in _DEAD_WORKER):
            asking.deaths += 1
            if not any(id(other) not in asking.tried for other in self.up()):
                asking.tried.discard(id(endpoint))  # it held the request until the worker was replaced, or nearly so
            return asking.may_be_sent_again
        return _NOT_HERE in said and any(id(other) not in asking.tried for other in self.up())


def _gone(detail: str) -> Refusal:
    return Refusal(503, "server-unavailable", "No server answers", detail, retry_after_s=1.0)
