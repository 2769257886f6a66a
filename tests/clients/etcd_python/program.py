"""Python's etcd3 0.12, unmodified, against the etcd API. Arguments: host, port, CA, certificate, key. Prints what works."""
import queue
import sys
import threading

import etcd3


def check(good, what):
    if not good:
        raise SystemExit(f"wrong: {what}")
    print("ok", what, flush=True)


def main(host, port, ca, cert, key):
    client = etcd3.client(host=host, port=int(port), ca_cert=ca, cert_cert=cert, cert_key=key, timeout=20)
    for number in range(5):
        client.put(f"py/{number}", f"v{number}")
    value, meta = client.get("py/3")
    check(value == b"v3" and meta.key == b"py/3" and meta.version == 1, "get")
    check([v for v, _ in client.get_prefix("py/", sort_order="descend")][:2] == [b"v4", b"v3"], "range")
    check(client.put("py/3", "new", prev_kv=True).prev_kv.value == b"v3", "previous value")
    succeeded, answers = client.transaction(compare=[client.transactions.value("py/3") == "new"],
                                            success=[client.transactions.put("py/t", "then"), client.transactions.get("py/0")],
                                            failure=[client.transactions.delete("py/0")])
    check(succeeded and answers[1][0][0] == b"v0", "transaction")
    check(client.replace("py/3", "new", "newer") and not client.replace("py/3", "new", "x"), "compare and swap")
    check(client.put_if_not_exists("py/fresh", "1") and not client.put_if_not_exists("py/fresh", "2"), "create once")

    events = queue.Queue()
    watch = client.add_watch_prefix_callback("py/", events.put)
    client.put("py/watched", "1")
    client.delete("py/watched")
    seen = []
    while len(seen) < 2:
        seen.extend(events.get(timeout=30).events)
    check([type(event).__name__ for event in seen] == ["PutEvent", "DeleteEvent"], "watch")
    client.cancel_watch(watch)
    iterator, cancel = client.watch_prefix("py/", start_revision=meta.mod_revision)
    check(next(iterator).key == b"py/3", "watch from a revision")
    cancel()

    lease = client.lease(30)
    client.put("py/leased", "x", lease=lease)
    check(list(lease.refresh())[0].TTL > 0 and lease.remaining_ttl > 0 and lease.keys == [b"py/leased"], "lease")
    lease.revoke()
    check(client.get("py/leased")[0] is None, "revoke")

    inside, most, turns = [0], [0], []

    def work(number):
        other = etcd3.client(host=host, port=int(port), ca_cert=ca, cert_cert=cert, cert_key=key, timeout=20)
        for _ in range(5):
            with other.lock("py-lock", ttl=20):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                turns.append(number)
                inside[0] -= 1
    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    check(most[0] == 1 and len(turns) == 15, "lock")

    check([member.name for member in client.members] == ["n1"], "members")
    check(client.status().leader.name == "n1", "status")
    check(client.hash() != 0, "hash")
    client.compact(client.get("py/3")[1].mod_revision)
    client.defragment()
    with open("/dev/null", "wb") as nowhere:
        client.snapshot(nowhere)
    check(True, "compact, defragment, snapshot")
    check(client.delete_prefix("py/").deleted >= 7, "delete")
    print("done")


main(*sys.argv[1:])
