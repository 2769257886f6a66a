#!/usr/bin/env python3
"""Makes the data directories of a cluster of the program that is built, for tests/process/test_upgrade.py: run when what
a cluster stores has changed, and commit what it writes.

    tests/upgrade/make_cluster.py NAME    # writes tests/upgrade/cluster-NAME.tar.xz and cluster-NAME.json

The archive has what three voters left behind when they were killed, after leaders had changed. Keys, certificates and addresses are left out: whoever opens it makes new ones. The JSON file has what clients
read from it before.
"""
import json
import pathlib
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lib.cluster import Cluster  # noqa: E402

KEPT = ("identity", "log", "state")


def fill(cluster):
    """Makes one of everything that the groups of all nodes share. Answers what is to be found again."""
    rest = cluster.rest("n1")

    def ask(method, path, body=None, **options):
        answer = rest.call(method, path, body, **options)
        assert answer.status in (200, 201), answer
        return answer.json

    for number in range(40):
        ask("PUT", f"kv/up%2F{number}", {"value": f"first {number}"})
    middle = ask("GET", "kv", query={"prefix": "up/", "countOnly": "true"})["revision"]
    for number in range(0, 40, 3):
        ask("PUT", f"kv/up%2F{number}", {"value": f"second {number}"})
    ask("DELETE", "kv/up%2F1")
    service = ask("POST", "services", {"serviceName": "upgraded", "address": "10.0.0.1", "port": 80, "ttl": "86400s"},
                  headers={"Idempotency-Key": "upgrade-cluster"})
    return {"clusterId": cluster.context["clusterId"], "service": service, "requestId": "upgrade-cluster",
            "middle": middle, "keys": rest.get("kv", prefix="up/", limit="100").json["pairs"],
            "keysAtMiddle": rest.get("kv", prefix="up/", revision=middle, limit="100").json["pairs"]}


def main(name):
    cluster = Cluster()
    try:
        cluster.start()
        expected = fill(cluster)
        for leader in ("n2", "n3"):
            cluster.cli_ok("cluster", "transfer", "core", leader)
        cluster.wait_equal(cluster.names())
        for node in cluster.names():
            cluster.kill(node)
        path = HERE / f"cluster-{name}.tar.xz"
        with tarfile.open(path, "w:xz", preset=9) as archive:
            for node in ("n1", "n2", "n3"):
                for part in KEPT:
                    archive.add(cluster.dir / node / part, f"{node}/{part}", filter=as_of_nobody)
        (HERE / f"cluster-{name}.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
        print(f"{path.relative_to(HERE.parent.parent)}: {path.stat().st_size} bytes")
    finally:
        cluster.close()


def as_of_nobody(info):
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = "root"
    return info


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
