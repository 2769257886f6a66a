"""Topics: `client.events.publish("orders.created", {"id": 17})`, `for event in
client.events.subscribe("orders.>")`."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from uccp import _contract, errors
from uccp.connection import Connection
from uccp.transactions import Producer


@dataclasses.dataclass(frozen=True)
class Event:
    """An event that was delivered. `payload` is bytes, text or what JSON holds, as it was published.

    `cursor` goes on behind it. ack() says that it is done with, nack() that it is to come again; both need a
    subscription with `ack="MANUAL"`."""

    id: str
    topic: str
    payload: Any
    type: str
    key: str
    headers: Mapping[str, str]
    partition: int
    offset: int
    time: datetime.datetime | None
    cursor: str
    delivery_attempt: int
    subscription: str | None
    ack_id: str
    _settle: Callable[..., None] = dataclasses.field(repr=False, compare=False)

    def ack(self) -> None:
        self._settle("AckEvents")

    def nack(self, delay: float | None = None) -> None:
        self._settle("NackEvents", delay=delay)


@dataclasses.dataclass(frozen=True)
class Published:
    """Where an event is; `duplicate`: it was there already."""

    id: str
    partition: int
    offset: int
    duplicate: bool


def publish(
    connection: Connection,
    topic: str,
    payloads: Sequence[Any],
    *,
    key: str | None,
    type: str | None,
    headers: Mapping[str, str] | None,
    transaction_id: str | None = None,
) -> list[Published]:
    """What Events.publish() and Transaction.publish() share."""

    def event(payload: Any) -> dict[str, Any]:
        kind = "data" if isinstance(payload, bytes) else "text" if isinstance(payload, str) else "json"
        value = {"null_value": 0} if payload is None else payload
        return {kind: value, "key": key, "type": type, "headers": headers}

    answer = connection.call(
        "EventBus/Publish", topic=topic, events=[event(one) for one in payloads], transaction_id=transaction_id
    )
    return [Published(one.id, one.partition, one.offset, one.duplicate) for one in answer.results]


def _payload(event: Any) -> Any:
    which = event.WhichOneof("payload")
    if which == "json":
        return json_format.MessageToDict(event.json)
    return getattr(event, which) if which else None


class Events:
    """The event bus in the client's namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create_topic(self, name: str, *, partitions: int = 1, exist_ok: bool = True, **fields: Any) -> None:
        """Makes a topic; other fields are those of the contract's Topic."""
        try:
            self._connection.call("EventBus/CreateTopic", topic={"name": name, "partitions": partitions, **fields})
        except errors.AlreadyExists:
            if not exist_ok:
                raise

    def delete_topic(self, name: str) -> None:
        self._connection.call("EventBus/DeleteTopic", name=name)

    def publish(
        self,
        topic: str,
        *payloads: Any,
        key: str | None = None,
        type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[Published]:
        """Publishes one event a payload, all in one request, and answers when they are stored. Bytes and text travel
        as
        they are, all else as JSON."""
        return publish(self._connection, topic, payloads, key=key, type=type, headers=headers)

    def producer(self, name: str, *, timeout: float | None = None) -> Producer:
        """Who makes transactions under this name, each of which may take `timeout` seconds (a minute)."""
        return Producer(self._connection, name, timeout)

    def pull(self, subscription: str, *, limit: int = 100, wait: float | None = None) -> list[Event]:
        """The next events of a subscription that exists, at most `limit`; none if there are none in `wait` seconds."""
        answer = self._connection.call(
            "EventBus/PullEvents", subscription=subscription, max_events=limit, wait=wait
        )
        return [self._event(item, subscription) for item in answer.deliveries]

    def subscribe(
        self,
        *topics: str,
        subscription: str | None = None,
        since: str = "",
        start: str = "LATEST",
        filter: str | None = None,
        ack: str | None = None,
        follow: bool = True,
        limit: int | None = None,
        **fields: Any,
    ) -> Iterator[Event]:
        """Yields events, over lost connections too. Without `subscription` nothing is kept by the cluster, and `since`
        resumes; with one, progress is kept under its name. `follow=False` ends at the end of what there is."""
        stream = self._connection.stream(
            "EventBus/Subscribe",
            topics=topics,
            subscription=subscription,
            since=since or None,
            start=None if since else start,
            filter=filter,
            ack_mode=ack,
            no_follow=not follow or None,
            limit=limit,
            **fields,
        )
        given = 0
        with stream:
            for item in stream:
                if not item.HasField("event"):  # only tells how far the stream is
                    continue
                yield self._event(item, subscription)
                given += 1
                if given == limit:  # counted here too: a stream that was opened again counts anew
                    return

    def _event(self, item: Any, subscription: str | None) -> Event:
        event = item.event

        def settle(how: str, **more: Any) -> None:
            if not item.ack_id:
                raise errors.FailedPrecondition(
                    'this subscription acknowledges by itself; subscribe with ack="MANUAL"', reason="ACK_AUTOMATIC"
                )
            self._connection.call(f"EventBus/{how}", subscription=subscription, ack_ids=[item.ack_id], **more)

        return Event(
            id=event.id,
            topic=event.topic,
            payload=_payload(event),
            type=event.type,
            key=event.key,
            headers=dict(event.headers),
            partition=event.partition,
            offset=event.offset,
            time=_contract.time_of(event, "publish_time"),
            cursor=item.cursor,
            subscription=subscription,
            ack_id=item.ack_id,
            delivery_attempt=item.delivery_attempt,
            _settle=settle,
        )
