"""What asyncio needs: calls that are awaited, and streams as asynchronous iterators.

    async with uccp.lock("orders/42"): ...
    values = await asyncio.gather(*square.map(range(10)))
    async for event in uccp.aio.iterate(client.events.subscribe("orders.>")): ...

Locks and elections are asynchronous context managers by themselves, references are awaitable. All of it runs on
threads of
the event loop's default executor, so the loop is never held up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_END = object()


async def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Awaits a blocking call of this package: `await uccp.aio.call(client.kv.put, "a", "1")`."""
    return await asyncio.to_thread(function, *args, **kwargs)


async def iterate(items: Iterator[T]) -> AsyncIterator[T]:
    """Yields what a stream of this package yields, and ends it when the loop is done with it."""

    def following() -> Any:
        return next(items, _END)

    try:
        while (item := await asyncio.to_thread(following)) is not _END:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
