"""Transactions over topics: events that are published and deliveries that are confirmed count all or none.

    producer = client.events.producer("billing-7")
    for batch in iter(lambda: client.events.pull("orders", wait=5), []):
        with producer.transaction() as transaction:
            for order in batch:
                transaction.publish("invoices", invoice_of(order), key=order.key)
            transaction.ack(*batch)

Each order has its invoice exactly once, whoever dies when: leaving `with` commits, an exception aborts, and who was
replaced by another producer of the same name can commit nothing more.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from uccp import errors
from uccp.connection import Connection

if TYPE_CHECKING:
    from uccp.events import Event, Published

_ACKS_MAX = 1000  # of one call


class Producer:
    """A name that makes transactions, one at a time. A later producer of the name, in whatever process, fences this
    one: its open transaction is aborted, and whatever it does from then on raises `FailedPrecondition` with the reason
    `PRODUCER_FENCED`."""

    def __init__(self, connection: Connection, name: str, timeout: float | None) -> None:
        self._connection = connection
        self._timeout = timeout
        self.name = name
        self.epoch = 0
        """Which of the producers of this name it is; 0 before its first transaction."""

    def transaction(self) -> Transaction:
        """Begins one; use it with `with`, or end it by commit() or abort()."""
        begun = self._connection.call(
            "EventBus/BeginTransaction",
            producer_id=self.name,
            producer_epoch=self.epoch or None,
            timeout=self._timeout,
        )
        self.epoch = begun.producer_epoch
        return Transaction(self._connection, begun.id)


class Transaction:
    """One transaction. Nobody reads what is published in it before it is committed."""

    def __init__(self, connection: Connection, id: str) -> None:
        self._connection = connection
        self._open = True
        self.id = id

    def publish(
        self,
        topic: str,
        *payloads: Any,
        key: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[Published]:
        """As Events.publish(). The offsets mean nothing: events get theirs by the commit."""
        from uccp.events import publish

        return publish(self._connection, topic, payloads, key=key, type=type, headers=headers, transaction_id=self.id)

    def ack(self, *events: Event) -> None:
        """Confirms deliveries of subscriptions with `ack="MANUAL"`. `FailedPrecondition` with the reason `ACK_EXPIRED`
        says that one of them may be with somebody else by now; then nothing was confirmed, and committing would process
        it twice."""
        by_subscription: dict[str, list[str]] = {}
        for event in events:
            if not event.ack_id or event.subscription is None:
                raise errors.FailedPrecondition(
                    'this delivery acknowledged itself; subscribe with ack="MANUAL"', reason="ACK_AUTOMATIC"
                )
            by_subscription.setdefault(event.subscription, []).append(event.ack_id)
        for subscription, ids in by_subscription.items():
            for at in range(0, len(ids), _ACKS_MAX):
                self._connection.call(
                    "EventBus/AckEvents",
                    subscription=subscription,
                    ack_ids=ids[at : at + _ACKS_MAX],
                    transaction_id=self.id,
                )

    def commit(self) -> None:
        """Returns when everything of it counts."""
        self._connection.call("EventBus/CommitTransaction", id=self.id)
        self._open = False

    def abort(self) -> None:
        """Nothing of it is ever read, and what was confirmed in it comes again."""
        self._connection.call("EventBus/AbortTransaction", id=self.id)
        self._open = False

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._open:
            return
        if kind is None:
            self.commit()
            return
        try:
            self.abort()
        except errors.UccpError:
            pass  # the exception that is on its way says more; the transaction ends by its time
