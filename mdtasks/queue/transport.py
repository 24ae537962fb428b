"""kombu's Redis transport with three promises that no caller can go round.

1. A push onto a capped queue is checked against its cap in the same step (``push.lua``). Work that was accepted before
   (a retry, a redelivery) is never refused.
2. A rejected message moves from ``unacked`` to ``dlq`` in one step (``bury.lua``), wrapped with its reason.
3. An element that cannot be decoded becomes a dead letter; stock kombu lets it end the worker and loses it.

The Celery app names it as its ``broker_transport``; the broker's URL stays ``redis://``, so that Flower reads it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from queue import Empty
from typing import Any, ClassVar

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from mdtasks.connections import load_script
from mdtasks.domain.errors import QueueFullError
from mdtasks.queue.letters import DLQ, NEVER_A_TASK, Reason, is_letter, letter

PUSH = load_script("mdtasks.queue", "push.lua")
BURY = load_script("mdtasks.queue", "bury.lua")

#: Used when nobody said why a message was rejected.
_UNEXPLAINED = Reason(error_class="rejected", message="rejected without a reason")


class QoS(kombu_redis.QoS):
    """Acknowledgements, with a reject that buries."""

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put the message back (``requeue``) or bury it.

        A letter goes back, never into another letter; unless it cannot be read as one: then it is poison like others.
        """
        message = self._delivered.get(delivery_tag)
        if message is None:
            # The connection it came by was lost: it was put back, or will be, and whoever gets it next decides.
            return
        reason = getattr(message, "dead_reason", _UNEXPLAINED)
        if requeue or (is_letter(message.headers) and reason.error_class not in NEVER_A_TASK):
            super().reject(delivery_tag, requeue=True)
            return
        queue = message.delivery_info.get("routing_key", "")
        with self.channel.conn_or_acquire() as client:
            client.register_script(BURY)(
                keys=[self.unacked_key, self.unacked_index_key, DLQ],
                args=[delivery_tag, letter(json.dumps(message._raw), reason, queue)],
                client=client,
            )
        virtual.QoS.ack(self, delivery_tag)


class Channel(kombu_redis.Channel):
    """A channel that holds the caps and survives what it cannot read."""

    QoS = QoS
    #: Queue name -> most elements that may wait in it; a queue that is not named has no cap.
    caps: Mapping[str, int] = {}
    from_transport_options: ClassVar[tuple[str, ...]] = (*kombu_redis.Channel.from_transport_options, "caps")

    def _get_pool(self, asynchronous: bool = False) -> Any:
        """As kombu's, but for a connection that is closed and has no address any more: it speaks as one that was lost.
        kombu closes channels that hold messages after it, and a worker that loses Redis must reconnect, not end.
        """
        if self.connection.client is None:
            raise ConnectionError("the connection to the broker is closed")
        return super()._get_pool(asynchronous)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        """Push one envelope. Raises QueueFullError when the queue is at its cap."""
        cap = self.caps.get(queue)
        headers = message.get("headers") or {}
        if cap is None or headers.get("retries") or headers.get("redelivered"):
            super()._put(queue, message, **kwargs)
            return
        target = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        others = [key for step in self.priority_steps if (key := self._q_for_pri(queue, step)) != target]
        with self.conn_or_acquire() as client:
            pushed, depth = client.register_script(PUSH)(
                keys=[target, *others], args=[cap, dumps(message)], client=client
            )
        if not pushed:
            raise QueueFullError(queue, cap=cap, depth=depth)

    def _brpop_read(self, **options: Any) -> bool:
        """As kombu's, but an element that cannot be decoded is buried and the worker lives."""
        try:
            try:
                popped = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            if not popped:
                raise Empty
            queue = bytes_to_str(popped[0]).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            message = self._decoded(popped[1], queue)
            if message is not None:
                self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _decoded(self, element: bytes, queue: str) -> dict[str, Any] | None:
        """The message in a list element; None when it cannot be read and was buried."""
        try:
            message: dict[str, Any] = loads(bytes_to_str(element))
            # Where it was taken from is where it goes back to, whatever its sender wrote there.
            message["properties"]["delivery_info"] = {"exchange": "", "routing_key": queue}
            tag = self.Message(message, channel=self).delivery_tag  # decodes the transport's part
            if not isinstance(tag, str) or not isinstance(message["body"], str):
                raise TypeError("delivery_tag or body is no text")
            if not isinstance(message.get("headers") or {}, dict):
                raise TypeError("headers are no object")
        except Exception as exc:
            reason = Reason(error_class="undecodable", message=f"{type(exc).__name__}: {exc}")
            with self.conn_or_acquire() as client:
                client.lpush(DLQ, letter(element.decode(errors="backslashreplace"), reason, queue))
            return None
        return message


class Transport(kombu_redis.Transport):
    """What the Celery app names as ``broker_transport``."""

    Channel = Channel
