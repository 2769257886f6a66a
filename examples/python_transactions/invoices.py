"""Orders become invoices, each exactly once, though the process fails on its way again and again.

Every batch of orders is read, made into invoices and confirmed in one transaction. A failure in between aborts it: its
invoices are never read, and its orders come again.
"""

import argparse
import random
import uuid
from collections import Counter

import uccp


class Failure(Exception):
    """What goes wrong in the middle of the work."""


def process(events, producer, orders, invoices, failures):
    """One batch in one transaction. Returns how many orders it was."""
    batch = events.pull(orders, limit=10, wait=2)
    with producer.transaction() as transaction:
        for order in batch:
            number = order.payload["order"]
            transaction.publish(invoices, {"invoice": number, "amount": order.payload["amount"]}, key=order.key)
        transaction.ack(*batch)
        if random.random() < failures:
            raise Failure
    return len(batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--context-file", help="which cluster; default: as uccp-cli")
    parser.add_argument("--orders", type=int, default=100)
    parser.add_argument("--failures", type=float, default=0.3, help="share of transactions that fail")
    arguments = parser.parse_args()
    run = uuid.uuid4().hex[:8]
    orders, invoices = f"orders-{run}", f"invoices-{run}"
    with uccp.connect(context_file=arguments.context_file) as client:
        events = client.events
        for topic in (orders, invoices):
            events.create_topic(topic, partitions=3)
        reading = events.subscribe(orders, subscription=orders, start="EARLIEST", ack="MANUAL", limit=1)
        for number in range(arguments.orders):
            events.publish(orders, {"order": number, "amount": 10 * number}, key=f"customer-{number % 7}")
        next(reading).nack()  # the subscription is there
        reading.close()
        done = failed = 0
        producer = events.producer(f"invoicing-{run}")
        while done < arguments.orders:
            try:
                done += process(events, producer, orders, invoices, arguments.failures)
            except Failure:
                failed += 1
        written = Counter(
            int(one.payload["invoice"]) for one in events.subscribe(invoices, start="EARLIEST", follow=False)
        )
    assert written == Counter(range(arguments.orders)), "an invoice is missing, or there twice"
    print(f"{arguments.orders} orders, {sum(written.values())} invoices, each once; {failed} transactions failed")


if __name__ == "__main__":
    main()
