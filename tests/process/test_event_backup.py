# timeout: 240
# labels: backup
"""Events in backups: what was published, and where subscriptions were, comes back into a running node and into an empty one."""
import shutil
import subprocess
import unittest

from lib.events import payloads
from lib.uccp import CLI, SERVER, Node, clean_environment, require
from lib.wait import wait_until

require(SERVER, CLI)


class Restored(unittest.TestCase):
    def setUp(self):
        self.node = Node(agent=False)
        self.addCleanup(self.node.close)
        self.backups = self.node.base / "backups"
        key = self.node.base / "backup.key"
        key.write_text("5a" * 32 + "\n")
        self.key = ["--backup-key-file", str(key)]
        self.node.flags = ["--backup-dir", str(self.backups), *self.key]
        self.node.start()

    def publish(self, topic, *texts):
        body = {"topic": topic, "events": [{"text": text, "key": text} for text in texts]}
        answer = self.node.rest.post("events/publish", body)
        self.assertEqual(answer.status, 200, answer)
        return [result.get("offset", 0) for result in answer.json["results"]]

    def read(self, topic, **fields):
        body = {"topics": [topic], "start": "EARLIEST", "noFollow": True, **fields}
        with self.node.rest.stream("events/subscribe", body=body) as stream:
            return [item for item in stream.until(lambda item: "end" in item) if "event" in item]

    def pull(self, name):
        answer = self.node.rest.post(f"events/subscriptions/{name}:pull", {"wait": "5s"})
        self.assertEqual(answer.status, 200, answer)
        return answer.json.get("deliveries", [])

    def cli(self, *arguments):
        done = self.node.cli(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()

    def filled(self):
        """A topic with five events, of which a subscription has confirmed two, and a backup of that."""
        self.assertEqual(self.node.rest.post("events/topics", {"name": "orders"}).status, 201)
        self.publish("orders", *"abcde")
        taken = self.read("orders", subscription="billing", limit=2)
        confirmed = self.node.rest.post("events/subscriptions/billing:ack", {"ackIds": [i["ackId"] for i in taken]})
        self.assertEqual((confirmed.status, payloads(taken)), (200, ["a", "b"]), confirmed)
        return self.back_up()

    def back_up(self):
        backup = self.cli("backup", "create", "-o", "name").strip().split("/")[1]

        def made():
            state = self.node.rest.get(f"backups/{backup}").json
            self.assertNotEqual(state["status"], "FAILED", state)
            return state["status"] == "SUCCEEDED"
        wait_until(made, 60, "the backup to be made")
        return backup

    def restore(self, backup):
        self.cli("backup", "restore", backup, "--confirm-cluster-id", self.node.context["clusterId"])
        wait_until(lambda: "restored as" in self.node.rest.get(f"backups/{backup}").json.get("statusReason", ""), 60,
                   what="the end of the restore")

    def check(self):
        """All five are there at their offsets, what came later is not, and all goes on."""
        items = self.read("orders")
        self.assertEqual([(i["event"]["text"], i["event"].get("offset", 0)) for i in items], list(zip("abcde", range(5))))
        cursor = items[2]["cursor"]
        self.assertEqual(payloads(self.read("orders", since=cursor)), ["d", "e"])
        wait_until(lambda: self.node.rest.get("events/subscriptions/billing").json.get("backlog") == 3,
                   what="the subscription to be where it was")
        pulled = self.pull("billing")
        self.assertEqual(payloads(pulled), ["c", "d", "e"])
        done = self.node.rest.post("events/subscriptions/billing:ack", {"ackIds": [d["ackId"] for d in pulled]})
        self.assertEqual((done.status, done.json.get("expiredAckIds", [])), (200, []), done)
        self.assertEqual(self.publish("orders", "f", "g"), [5, 6], "offsets go on")
        self.assertEqual(payloads(self.pull("billing")), ["f", "g"])
        self.node.restart()
        self.assertEqual(payloads(self.read("orders")), list("abcdefg"))

    def test_a_running_node_has_its_events_again(self):
        backup = self.filled()
        self.publish("orders", "later", "too")
        self.assertEqual(self.node.rest.post("events/topics", {"name": "made.later"}).status, 201)
        self.publish("made.later", "x")
        self.restore(backup)
        self.assertEqual(self.node.rest.get("events/topics/made.later").status, 404)
        self.check()
        # And once more from a backup of what was restored.
        again = self.back_up()
        self.publish("orders", "h")
        self.restore(again)
        self.assertEqual(payloads(self.read("orders")), list("abcdefg"))

    def test_a_transaction_that_was_open_is_committed_after_the_restore(self):
        wait_until(lambda: self.node.rest.post("events/transactions", {"producerId": "level"}).status == 201,
                   what="the feature level")
        self.assertEqual(self.node.rest.post("events/topics", {"name": "both", "partitions": 4}).status, 201)
        ids = {}
        keys = [f"k{number}" for number in range(8)]
        for producer in ("kept", "late"):
            ids[producer] = self.node.rest.post("events/transactions", {"producerId": producer, "timeout": "10m"}).json["id"]
            events = [{"text": f"{producer} {key}", "key": key} for key in keys]
            stored = self.node.rest.post("events/publish", {"topic": "both", "events": events,
                                                            "transactionId": ids[producer]})
            self.assertEqual(stored.status, 200, stored)
            if producer == "kept":
                backup = self.back_up()
        self.assertEqual(self.node.rest.post(f"events/transactions/{ids['kept']}:abort", {}).status, 200)
        self.restore(backup)
        committed = self.node.rest.post(f"events/transactions/{ids['kept']}:commit", {})
        self.assertEqual((committed.status, committed.json.get("status")), (200, "COMMITTED"), committed)
        unknown = self.node.rest.post(f"events/transactions/{ids['late']}:commit", {})
        self.assertEqual((unknown.status, unknown.json.get("reason")), (404, "TRANSACTION_NOT_FOUND"), unknown)
        self.assertEqual(sorted(payloads(self.read("both"))), [f"kept {key}" for key in keys])

    def test_a_node_that_lost_everything_has_its_events_again(self):
        backup = self.filled()
        self.publish("orders", "later")
        self.node.kill()
        shutil.rmtree(self.node.dir)
        command = [SERVER, "restore", "--from", str(self.backups / backup), "--data-dir", str(self.node.dir), *self.key]
        restored = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                                  env=clean_environment(), check=False)
        self.assertEqual(restored.returncode, 0, restored.stderr)
        self.node.start()
        self.check()


if __name__ == "__main__":
    unittest.main()
