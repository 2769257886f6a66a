"""Object stores of a real node by REST, gRPC and the command line: content, versions, ends, limits, and kills."""
import base64
import hashlib
import json
import os
import unittest

from lib.uccp import NodeTest
from lib.wait import wait_until


def base64_of(content):
    return base64.b64encode(content).decode()


class ObjectTest(NodeTest):
    feature_level = 2

    def put(self, key, content, store="default", status=200, **fields):
        body = {"object": {"store": store, "key": key, **fields}, "data": base64_of(content)}
        answer = self.rest.put(f"objectstores/{store}/objects/{key}", body)
        self.assertEqual(answer.status, status, answer)
        return answer.json

    def content(self, key, store="default", query=""):
        answer = self.rest.get(f"objectstores/{store}/objects/{key}{query}")
        self.assertEqual(answer.status, 200, answer)
        return base64.b64decode(answer.json.get("data", ""))


class Objects(ObjectTest):
    def test_content_comes_back_whole_and_in_ranges(self):
        content = os.urandom(100_000)
        made = self.put("a/b.bin", content, contentType="image/png", metadata={"camera": "x"})
        self.assertEqual(made["sha256"], hashlib.sha256(content).hexdigest())
        self.assertEqual((made["size"], made["contentType"], made["principal"] != ""), (100_000, "image/png", True))
        self.assertEqual(self.content("a/b.bin"), content)
        self.assertEqual(self.content("a/b.bin", query="?offset=10&length=5"), content[10:15])
        shown = self.rest.get("objectstores/default/objects/a/b.bin?metadataOnly=true").json
        self.assertNotIn("data", shown)
        self.assertEqual(shown["object"]["metadata"], {"camera": "x"})
        self.assert_problem(self.rest.get("objectstores/default/objects/a/b.bin?offset=100001"), 400, "OFFSET_INVALID")
        self.assertEqual(self.rest.delete("objectstores/default/objects/a/b.bin").status, 204)
        self.assert_problem(self.rest.get("objectstores/default/objects/a/b.bin"), 404, "OBJECT_NOT_FOUND")

    def test_what_is_wrong_is_refused(self):
        self.put("right", b"x", sha256=hashlib.sha256(b"x").hexdigest())
        body = {"object": {"store": "default", "key": "wrong", "sha256": "0" * 64}, "data": base64_of(b"x")}
        self.assert_problem(self.rest.put("objectstores/default/objects/wrong", body), 400, "OBJECT_DIGEST_MISMATCH")
        self.assert_problem(self.rest.get("objectstores/default/objects/wrong"), 404)
        self.assert_problem(self.rest.get("objectstores/none/objects/x"), 404, "OBJECT_STORE_NOT_FOUND")
        for field, value in (("backend", "s3://bucket"), ("compression", "ZSTD"), ("eviction", "LRU")):
            self.assert_problem(self.rest.post("objectstores", {"name": "x", field: value}), 400,
                                "OBJECT_FEATURE_UNIMPLEMENTED", f"store.{field}")

    def test_an_etag_guards_changes(self):
        first = self.put("guarded", b"1")
        second = self.put("guarded", b"2", status=200)
        self.assertNotEqual(first["etag"], second["etag"])
        body = {"object": {"store": "default", "key": "guarded"}, "data": base64_of(b"3"), "ifMatch": first["etag"]}
        self.assert_problem(self.rest.put("objectstores/default/objects/guarded", body), 412, "ETAG_MISMATCH")
        self.assertEqual(self.content("guarded"), b"2")

    def test_objects_are_listed_by_prefix_label_and_page(self):
        for n in range(7):
            self.put(f"list/{n}", b"x" * n, labels={"odd": str(n % 2)})
        listed = self.rest.get("objectstores/default/objects?prefix=list/&pageSize=3").json
        keys = [one["key"] for one in listed["objects"]]
        while listed.get("nextPageToken"):
            listed = self.rest.get(f"objectstores/default/objects?prefix=list/&pageSize=3&pageToken={listed['nextPageToken']}").json
            keys += [one["key"] for one in listed["objects"]]
        self.assertEqual(keys, [f"list/{n}" for n in range(7)])
        odd = self.rest.get('objectstores/default/objects?prefix=list/&filter=labels.odd="1"').json["objects"]
        self.assertEqual([one["key"] for one in odd], ["list/1", "list/3", "list/5"])

    def test_an_object_ends_with_its_ttl(self):
        self.put("brief", b"x", ttl="1s")
        wait_until(lambda: self.rest.get("objectstores/default/objects/brief").status == 404, 20, "the object's end")
        self.assertNotIn("brief", [one["key"] for one in self.rest.get("objectstores/default/objects").json["objects"]])

    def test_versions(self):
        self.assertEqual(self.rest.post("objectstores", {"name": "kept", "versioning": True}).status, 201)
        first = self.put("k", b"one", "kept")
        second = self.put("k", b"two", "kept")
        self.assertEqual(self.content("k", "kept"), b"two")
        self.assertEqual(self.content("k", "kept", f"?version={first['version']}"), b"one")
        self.assertEqual(self.rest.delete(f"objectstores/kept/objects/k?version={second['version']}").status, 204)
        self.assertEqual(self.content("k", "kept"), b"one")

    def test_stores_are_made_listed_filled_and_removed(self):
        made = self.rest.post("objectstores", {"name": "small", "bytesMax": "10"})
        self.assertEqual((made.status, made.headers["Location"]), (201, "/api/v1/objectstores/small"))
        self.assert_problem(self.rest.post("objectstores", {"name": "small"}), 409, "OBJECT_STORE_EXISTS")
        self.put("k", b"12345", "small")
        body = {"object": {"store": "small", "key": "l"}, "data": base64_of(b"123456")}
        self.assert_problem(self.rest.put("objectstores/small/objects/l", body), 429, "OBJECT_STORE_FULL")
        names = [one["name"] for one in self.rest.get("objectstores").json["stores"]]
        self.assertEqual([name for name in names if name in ("default", "small")], ["default", "small"])
        shown = self.rest.get("objectstores/small").json
        self.assertEqual((shown["objects"], shown["size"]), (1, 5))
        self.assert_problem(self.rest.delete("objectstores/small"), 412, "OBJECT_STORE_NOT_EMPTY")
        self.assertEqual(self.rest.delete("objectstores/small?force=true").status, 204)
        self.assert_problem(self.rest.get("objectstores/small"), 404)

    def test_by_the_command_line(self):
        self.put("shown", b"text")
        listed = self.node.cli("object", "list", "default", "-o", "json").stdout
        self.assertIn("shown", [one["key"] for one in json.loads(listed)])
        self.assertIn('"sha256"', self.node.cli("object", "get", "shown", "-o", "json").stdout.decode())
        self.node.cli("object", "delete", "shown")
        self.assertEqual(self.rest.get("objectstores/default/objects/shown").status, 404)


class Inputs(ObjectTest):
    """Objects as inputs of commands."""

    def test_an_input_is_the_object_of_the_moment(self):
        store = {"name": "kept", "versioning": True}
        self.assertEqual(self.rest.post("objectstores", store).status, 201)
        first = self.put("plan", b"first\n", store="kept")
        self.put("plan", b"second\n", store="kept")
        self.put("plan", b"default\n")
        held = self.node.submit("cat a b c", nodeSelector={"no": "such"}, inputs=[
            {"path": "a", "object": {"store": "kept", "key": "plan", "version": first["version"]}},
            {"path": "b", "object": {"store": "kept", "key": "plan"}}, {"path": "c", "object": {"key": "plan"}}])
        self.assertEqual([one["blob"]["size"] for one in held["inputs"]], [6, 7, 8])
        self.put("plan", b"replaced\n")
        task = self.node.run("cat a b c", inputs=held["inputs"])
        self.assertEqual(self.node.log(task["id"]), [b"first", b"second", b"default"])
        self.rest.delete(f"tasks/{held['id']}")

    def test_graphs_and_arrays_take_them_too(self):
        self.put("words", b"a b c\n")
        entry = {"path": "words", "object": {"key": "words"}}
        graph = {"tasks": [{"key": "one", "task": {"command": ["cat", "words"], "inputs": [entry],
                                                   "resources": {"cpu": 0.1, "memory": "64Mi"}}}]}
        answer = self.rest.post("tasks:graph", graph)
        self.assertIn(answer.status, (200, 201), answer)
        task = self.node.wait_task(answer.json["tasks"][0]["id"])
        self.assertEqual((task["status"], self.node.log(task["id"])), ("SUCCEEDED", [b"a b c"]))
        array = self.node.submit("cat words", inputs=[entry], array={"size": 3})
        self.assertEqual(self.node.wait_task(array["id"])["status"], "SUCCEEDED")

    def test_what_is_not_there_is_said_and_nothing_is_submitted(self):
        for reference in ({"key": "none"}, {"store": "none", "key": "x"}, {"key": "here", "version": "7"}):
            self.put("here", b"x")
            body = {"id": "never", "command": ["true"], "inputs": [{"path": "x", "object": reference}]}
            self.assert_problem(self.rest.post("tasks", body), 404, "OBJECT_NOT_FOUND")
        self.assertEqual(self.rest.get("tasks/never").status, 404)

    def test_who_may_not_read_an_object_cannot_have_a_task_read_it(self):
        self.assertEqual(self.rest.post("tenants", {"name": "inputs"}).status, 201)
        query = "?tenant=inputs"
        self.assertEqual(self.rest.post("roles" + query, {"name": "tasks-only", "permissions": ["tasks.read", "tasks.write"]}).status, 201)
        owner, other = (Access.credential(self, name, role, "inputs") for name, role in (("own", "developer"), ("run", "tasks-only")))
        body = {"object": {"store": "default", "key": "secret"}, "data": base64_of(b"secret")}
        self.assertEqual(owner.put("objectstores/default/objects/secret", body).status, 200)
        task = {"command": ["cat", "x"], "inputs": [{"path": "x", "object": {"key": "secret"}}]}
        self.assert_problem(other.post("tasks", task), 403)
        self.assertEqual(owner.post("tasks", task).status, 201)


class Access(ObjectTest):
    """Who may do what, by roles, namespaces and tenants."""

    def credential(self, name, role, tenant, **fields):
        query = f"?tenant={tenant}"
        for path, body in (("users", {"name": name, "kind": "SERVICE_ACCOUNT"}), ("bindings", {"role": role, "members": [name]})):
            self.assertEqual(self.rest.post(path + query, body).status, 201)
        key = self.rest.post("apikeys" + query, {"principal": name, **fields}).json["key"]
        client = self.node.client(token=key)
        self.addCleanup(client.close)
        return client

    def test_roles_namespaces_and_tenants_bound_who_reads_and_writes(self):
        for tenant in ("acme", "other"):
            self.assertEqual(self.rest.post("tenants", {"name": tenant}).status, 201)
        writer = self.credential("ci", "developer", "acme")
        body = {"object": {"store": "default", "key": "plan"}, "data": base64_of(b"secret")}
        path = "objectstores/default/objects/plan"
        self.assertEqual(writer.put(path, body).status, 200)
        reader = self.credential("eve", "viewer", "acme")
        self.assertEqual(base64.b64decode(reader.get(path).json["data"]), b"secret")
        for refused in (reader.put(path, body), reader.delete(path), reader.post("objectstores", {"name": "mine"})):
            self.assertEqual(refused.status, 403, refused)
        elsewhere = self.credential("blue", "developer", "acme", namespaces=["blue"])
        self.assert_problem(elsewhere.get(path + "?namespace=default"), 403, "NAMESPACE_DENIED")
        self.assert_problem(elsewhere.get(path), 404, "OBJECT_NOT_FOUND")
        stranger = self.credential("ann", "developer", "other")
        self.assert_problem(stranger.get(path), 404, "OBJECT_NOT_FOUND")
        self.assertEqual(stranger.get("objectstores/default/objects").json.get("objects", []), [])
        self.assertEqual(base64.b64decode(writer.get(path).json["data"]), b"secret")


class Killed(ObjectTest):
    def test_what_was_acknowledged_survives_kill_nine(self):
        content = os.urandom(50_000)
        self.put("kept", content)
        self.node.restart()
        self.assertEqual(self.content("kept"), content)


if __name__ == "__main__":
    unittest.main()
