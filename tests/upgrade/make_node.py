#!/usr/bin/env python3
"""Makes a data directory of the version that is built, for tests/process/test_upgrade.py: run once a release, and commit
what it writes.

    tests/upgrade/make_node.py            # writes tests/upgrade/node-VERSION.tar.xz and node-VERSION.json

The archive has the directory of a node that was killed: log, state, blobs, identity and the agent's own files. Keys and
certificates are left out, since they expire; a node without them makes new ones. The JSON file has what clients read from
it before.
"""
import base64
import io
import json
import pathlib
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lib.uccp import Node  # noqa: E402
from lib.wait import wait_until  # noqa: E402

LEFT_OUT = ("pki", "dev.json", "agent.json", "agent.log")


def fill(node):
    """Makes one of everything. Answers what is to be found again."""
    rest = node.rest
    data = base64.b64encode(b"an input\n").decode()
    first = node.run("cat in; echo to stderr >&2; echo made > out", request_id="upgrade-1", outputs=["out"], retention="8760h",
                     inputs=[{"path": "in", "data": data}], labels={"kind": "first"}, env={"A": "b"})
    second = node.run("cat in; exit 3", retention="8760h", retry={"maxAttempts": 2, "initialBackoff": "0.01s"},
                      inputs=[{"path": "in", "taskOutput": {"taskId": first["id"], "path": "out"}}])
    waiting = node.submit("true", nodeSelector={"no": "such"}, priority=70, dependencies=[{"taskId": first["id"]}])
    cancelled = rest.delete(f"tasks/{node.submit('true', nodeSelector={'no': 'such'}, retention='8760h')['id']}").json
    service = rest.post("services", {"serviceName": "upgraded", "version": "1.2.3", "address": "10.0.0.1", "port": 80,
                                     "labels": {"tier": "web"}, "ttl": "86400s"}).json
    rest.post("workers", {"id": "declared", "labels": {"rack": "7"}, "resources": {"total": {"cpu": 4, "memory": "8Gi"}}})
    rest.post("workers/declared:cordon", {})
    return {"tasks": [rest.get(f"tasks/{t['id']}").json for t in (first, second, waiting, cancelled)],
            "logs": {t["id"]: [[i["stream"], i["text"]] for i in node.log_items(t["id"])[:-1]] for t in (first, second)},
            "artifacts": {first["id"]: {"out": "made\n"}}, "request": {"key": "upgrade-1", "id": first["id"]},
            "services": [rest.get(f"services/{service['id']}").json], "workers": [rest.get("workers/declared").json],
            "epoch": next(w["epoch"] for w in rest.get("workers").json["workers"] if w["id"] != "declared"),
            "audit": [r["id"] for r in rest.get("audit/logs", pageSize=1000).json.get("records", [])]}


def main():
    node = Node()
    try:
        node.start()
        version = node.rest.get("version").json["version"]
        expected = fill(node)
        agent = node.kill_agent()
        node.kill_group()
        wait_until(lambda: not pathlib.Path(f"/proc/{agent}").exists(), 20, "the end of the agent")
        path = HERE / f"node-{version}.tar.xz"
        with tarfile.open(path, "w:xz", preset=9) as archive:
            for file in sorted(node.dir.rglob("*")):
                relative = file.relative_to(node.dir)
                if relative.parts[0] in LEFT_OUT or not (file.is_file() or file.is_dir()):
                    continue
                info = archive.gettarinfo(file, str(relative))
                info.uid = info.gid = 0
                info.uname = info.gname = "root"
                archive.addfile(info, io.BytesIO(file.read_bytes()) if file.is_file() else None)
        (HERE / f"node-{version}.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
        print(f"{path.relative_to(HERE.parent.parent)}: {path.stat().st_size} bytes")
    finally:
        node.close()


if __name__ == "__main__":
    main()
