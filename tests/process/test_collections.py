"""What every collection of the REST surface does alike: pages, filters, orders, masks, places and tags of what is made."""
import json
import unittest

from lib.uccp import NodeTest

PASSWORD = "four small words here"
# Collection -> what makes its resources `a` and `b`, and what a change of it may be.
MAKES = {
    "services": (lambda x: {"serviceName": "s" + x, "address": "10.0.0.1", "port": 80, "ttl": "600s"}, {"weight": 7}),
    "locks": (lambda x: {"name": "lock-" + x, "ttl": "600s"}, None),
    "elections": (lambda x: {"group": "group-" + x, "candidate": {"id": "c"}, "ttl": "600s"}, None),
    "kv-leases": (lambda x: {"ttl": "600s"}, None),
    "events/topics": (lambda x: {"name": "topic-" + x}, {"labels": {"a": "1"}}),
    "tasks": (lambda x: {"name": "task-" + x, "command": ["true"]}, None),
    "quotas": (lambda x: {"scope": "USER", "subject": "user-" + x, "hard": {"cpu": 4}}, None),
    "functions": (lambda x: {"name": "function-" + x, "runtime": "python3.11", "entryPoint": "m:f", "source": "ZGVmIGYoKTogcGFzcwo="}, None),
    "objectstores": (lambda x: {"name": "store-" + x}, None),
    "tenants": (lambda x: {"name": "tenant-" + x}, {"displayName": "T"}),
    "namespaces": (lambda x: {"name": "namespace-" + x}, None),
    "users": (lambda x: {"name": "user-" + x, "password": PASSWORD}, {"displayName": "U"}),
    "roles": (lambda x: {"name": "role-" + x, "permissions": ["tasks.read"]}, {"permissions": ["locks.read"]}),
    "bindings": (lambda x: {"role": "viewer", "members": ["user-" + x]}, None),
    "apikeys": (lambda x: {"principal": "user-" + x}, None),
    "policies": (None, None),
    "secrets": (None, None),
}
# Documented 201 answers whose way is not that of a collection, or that have tests of their own.
EXCUSED = {"latches", "workers", "backups", "cluster/members", "compute/tasks", "tasks/{id}/checkpoints", "objects:upload", "events/transactions"}


class Collections(NodeTest):
    agent = False
    feature_level = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        rest = cls.node.rest
        cls.document = rest.get("/openapi.json").json
        cls.made = {}
        for path, (body, _) in MAKES.items():
            cls.made[path] = []
            for x in "ab":
                if path == "policies":
                    answer = rest.put("policies/policy-" + x, {"text": 'forbid (principal == "nobody", action, resource);'})
                elif path == "secrets":
                    answer = rest.put("secrets/secret-" + x, {"value": x})
                else:
                    answer = rest.post(path, body(x), headers={"Idempotency-Key": f"made-{path.replace('/', '-')}-{x}"})
                assert answer.status in (200, 201), (path, answer)
                cls.made[path].append(answer)

    def operations(self):
        for path, item in self.document["paths"].items():
            for verb, operation in item.items():
                if path.startswith("/api/v1/") and not operation.get("x-uccp-unbuilt"):
                    yield path.removeprefix("/api/v1/"), verb, operation

    def lists(self):
        """Path, parameters and the name of the items of each list that needs no name in its path."""
        for path, verb, operation in self.operations():
            names = {p.get("name") for p in operation.get("parameters", [])}
            if verb == "get" and "pageSize" in names and "{" not in path:
                yield path, names

    def items_of(self, answer):
        self.assertEqual(answer.status, 200, answer)
        return next((value for value in answer.json.values() if isinstance(value, list)), [])

    def test_every_list_comes_in_pages_that_are_linked(self):
        seen = set()
        for path, names in self.lists():
            with self.subTest(path):
                seen.add(path)
                query = "?pageSize=1&consistency=linearizable" + ("&countTotal=true" if "countTotal" in names else "")
                target, items, total = f"/api/v1/{path}{query}", [], None
                while target:
                    page = self.rest.call("GET", target)
                    one = self.items_of(page)
                    self.assertLessEqual(len(one), 1)
                    items += one
                    total = page.json.get("totalSize", 0) if total is None else total
                    link = page.headers.get("Link")
                    self.assertEqual(link is not None, "nextPageToken" in page.json, page.headers)
                    self.assertLess(len(items), 500)
                    target = link[1:link.index(">")] if link else None
                    self.assertTrue(link is None or link.endswith('; rel="next"'), link)
                whole = self.items_of(self.rest.get(path, pageSize=500, consistency="linearizable"))
                self.assertEqual([json.dumps(item, sort_keys=True) for item in items],
                                 [json.dumps(item, sort_keys=True) for item in whole])
                if "countTotal" in names:
                    self.assertEqual(total, len(whole))
                # Or by a number, from which pages go on by their tokens.
                jumped = self.rest.get(path, pageSize=1, pageToken="offset:1", consistency="linearizable")
                self.assertEqual(self.items_of(jumped), whole[1:2])
                self.assertEqual("nextPageToken" in jumped.json, len(whole) > 2)
                self.assert_problem(self.rest.get(path, pageToken="offset:10001"), 400, "PAGE_TOKEN_INVALID", "pageToken")
                if path in MAKES:
                    self.assertGreaterEqual(len(whole), 2)
        self.assertLessEqual(set(MAKES), seen, "a collection has no list")

    def test_every_list_refuses_what_it_does_not_understand(self):
        for path, names in self.lists():
            for query, field in (({"filter": 'noSuchField = "x"'}, "filter"), ({"filter": "("}, "filter"),
                                 ({"orderBy": "noSuchField"}, "orderBy"), ({"orderBy": "id sideways"}, "orderBy"),
                                 ({"fields": "noSuchField"}, "fields"), ({"pageToken": "made-up"}, "pageToken"),
                                 ({"pageSize": -1}, "pageSize"), ({"noSuchParameter": 1}, "noSuchParameter")):
                with self.subTest(path, **query):
                    if field in names or field == "noSuchParameter":
                        self.assert_problem(self.rest.get(path, **query), 400, field=field)

    def test_every_list_can_be_told_its_fields(self):
        for path in MAKES:
            with self.subTest(path):
                whole = self.items_of(self.rest.get(path))[0]
                name = next(iter(whole))
                for item in self.items_of(self.rest.get(path, fields=name)):
                    self.assertLessEqual(set(item), {name})

    def test_what_is_made_has_its_place(self):
        documented = {path: operation["responses"]["201"].get("headers", {}) for path, verb, operation in self.operations()
                      if verb == "post" and "201" in operation["responses"]}
        self.assertEqual(set(documented) - EXCUSED, {path for path, (body, _) in MAKES.items() if body is not None})
        for path, headers in documented.items():
            if path in EXCUSED:
                continue
            with self.subTest(path):
                answer = self.made[path][0]
                self.assertEqual(answer.status, 201)
                self.assertEqual("Location" in answer.headers, "Location" in headers, answer.headers)
                self.assertEqual("ETag" in answer.headers, "ETag" in headers, answer.headers)
                if "Location" not in headers:
                    continue
                there = self.rest.get(answer.headers["Location"])
                self.assertEqual(there.status, 200, there)
                shared = {key for key in ("id", "name", "namespace", "group", "serviceName") if key in answer.json and key in there.json}
                self.assertTrue(shared, there)
                for key in shared:
                    self.assertEqual(there.json[key], answer.json[key])

    def test_a_place_names_the_namespace_and_the_tenant_that_are_not_ones_own(self):
        far = self.rest.post("services", {**MAKES["services"][0]("far"), "namespace": "far-away"}).headers["Location"]
        self.assertTrue(far.endswith("?namespace=far-away"), far)
        self.assertEqual(self.rest.get(far).json["namespace"], "far-away")
        user = self.rest.post("users?tenant=tenant-a", {"name": "gus", "password": PASSWORD}).headers["Location"]
        self.assertEqual(user, "/api/v1/users/gus?tenant=tenant-a")
        self.assertEqual(self.rest.get(user).json["name"], "gus")
        self.assertEqual(self.rest.get("users/gus").status, 404)
        near = self.rest.post("users?tenant=default", {"name": "hal", "password": PASSWORD}).headers["Location"]
        self.assertEqual(near, "/api/v1/users/hal")

    def test_the_same_request_again_is_the_same_and_another_under_its_id_a_conflict(self):
        compared = 0
        for path, (body, _) in MAKES.items():
            operation = self.document["paths"]["/api/v1/" + path].get("post", {})
            takes = any(p.get("$ref", "").endswith("IdempotencyKey") or p.get("name") == "Idempotency-Key"
                        for p in operation.get("parameters", []))
            if body is None or not takes:
                continue
            with self.subTest(path):
                headers = {"Idempotency-Key": f"made-{path.replace('/', '-')}-a"}
                again = self.rest.post(path, body("a"), headers=headers)
                self.assertEqual(again.status, self.made[path][0].status, again)
                first = self.made[path][0]
                self.assertEqual(again.headers["Location"], first.headers["Location"])
                for key in {"id", "name", "group", "leaseId"} & set(first.json):
                    self.assertEqual(again.json[key], first.json[key])
                compared += 1
                if body("a") != body("c"):
                    self.assert_problem(self.rest.post(path, body("c"), headers=headers), 409)
        self.assertGreater(compared, 10)

    def test_tags_save_reads_and_guard_changes(self):
        tagged = [path for path in MAKES if "ETag" in self.made[path][0].headers]
        self.assertGreaterEqual(len(tagged), 6)
        for path in tagged:
            place = self.made[path][1].headers.get("Location")
            if place is None:
                continue
            with self.subTest(path):
                read = self.rest.get(place)
                tag = read.headers["ETag"]
                self.assertEqual(json.loads(tag.removeprefix("W/")), read.json["etag"])
                same = self.rest.call("GET", place, headers={"If-None-Match": tag})
                self.assertEqual((same.status, same.body), (304, b""), same)
                self.assertEqual(self.rest.call("GET", place, headers={"If-None-Match": '"another"'}).status, 200)
                change = MAKES[path][1]
                if change is None:
                    continue
                verb = "patch" if any(verb == "patch" and p.startswith(path + "/{") and p.count("/") == path.count("/") + 1
                                      for p, verb, _ in self.operations()) else "put"
                stale = self.rest.call(verb.upper(), place, change, headers={"If-Match": '"another"'})
                self.assert_problem(stale, 412, "ETAG_MISMATCH")
                done = self.rest.call(verb.upper(), place, change, headers={"If-Match": tag})
                self.assertEqual(done.status, 200, done)
                self.assertNotEqual(done.headers["ETag"], tag)
                self.assert_problem(self.rest.call(verb.upper(), place, change, headers={"If-Match": tag}), 412, "ETAG_MISMATCH")
                self.assertEqual(self.rest.call("GET", place, headers={"If-None-Match": tag}).status, 200)


class Filters(NodeTest):
    """The grammar of docs/lists.md as a caller meets it."""

    agent = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for name, port, labels, more in (("a", 80, {"tier": "web", "env": "prod"}, {"region": "eu", "capabilities": ["pay", "refund"]}),
                                         ("b", 81, {"tier": "web"}, {"region": "us", "draining": True}),
                                         ("c", 443, {"a b/c".replace(" ", "."): "x"}, {"region": "eu", "zone": "1"}),
                                         ("d", 9000, {}, {"protocol": "grpc"})):
            made = cls.node.rest.post("services", {"id": name, "serviceName": "shop-" + name, "address": "10.0.0.1", "port": port,
                                                   "labels": labels, "ttl": "600s", **more})
            assert made.status == 201, made

    def test_selects_what_it_says(self):
        table = (('id = "a"', "a"), ("id = a OR id = b", "ab"), ('id != "a"', "bcd"), ("port > 80", "bcd"), ("port >= 81 port < 443", "b"),
                 ("port <= 80", "a"), ('serviceName = "shop-*"', "abcd"), ('serviceName = "*-d"', "d"), ("serviceName : hop", "abcd"),
                 ('region = "eu" AND zone = "1"', "c"), ("NOT region = eu", "bd"), ("-region = eu", "bd"),
                 ("id = a OR id = b AND region = us", "b"), ("id = a OR (id = b AND region = us)", "ab"), ("(id = a)", "a"),
                 ("labels.tier = web", "ab"), ("labels:env", "a"), ('labels."a.b/c" = x', "c"), ("labels.env != prod", "bcd"),
                 ("capabilities : refund", "a"), ("capabilities : steal", ""), ("draining = true", "b"), ("draining != true", "acd"),
                 ("healthStatus = HEALTHY", "abcd"), ("protocol:*", "d"), ("NOT protocol:*", "abc"), ("", "abcd"))
        for text, expected in table:
            with self.subTest(text):
                answer = self.rest.get("services", filter=text, consistency="linearizable")
                self.assertEqual(answer.status, 200, answer)
                self.assertEqual("".join(sorted(service["id"] for service in answer.json["services"])), expected)

    def test_refuses_with_the_place(self):
        deep, many = "(" * 17 + "id = a" + ")" * 17, " OR ".join(["id = a"] * 65)
        for text in ("id", "id =", "= a", "id = a AND", "id == a", "(id = a", "id = a)", 'id = "a', "draining < true", "port = many",
                     "healthStatus > HEALTHY", "labels = x", "address.x = 1", deep, many, "metadata.x = 1", "ttl = 1s"):
            with self.subTest(text[:60]):
                self.assert_problem(self.rest.get("services", filter=text), 400, "FILTER_INVALID", field="filter")
        self.assert_problem(self.rest.get("services", filter="id = " + "a" * 4096), 400, field="filter")
        unknown = self.rest.get("services", filter="serviceNmae = x")
        self.assertIn("serviceName", unknown.json["detail"], "the fields that there are")


class Bodies(NodeTest):
    agent = False

    @staticmethod
    def brotli(data):
        """A brotli stream of one block that is not compressed (RFC 7932, 9.2), so that nothing has to be installed."""
        head = (len(data) - 1) << 4 | 1 << 20
        return head.to_bytes(3, "little") + data + b"\x03"

    def test_a_body_may_come_in_brotli_and_in_no_encoding_that_is_unknown(self):
        body = json.dumps({"serviceName": "packed", "address": "10.0.0.1", "port": 1}).encode()
        made = self.rest.call("POST", "services", self.brotli(body), headers={"Content-Encoding": "br"})
        self.assertEqual((made.status, made.json["serviceName"]), (201, "packed"), made)
        for encoding, status in (("br", 400), ("deflate", 415), ("gzip, br", 415)):
            with self.subTest(encoding):
                self.assert_problem(self.rest.call("POST", "services", body, headers={"Content-Encoding": encoding}), status)

    def test_a_request_id_comes_back_and_one_that_is_none_does_not(self):
        for path, status in (("services", 200), ("services/none", 404), ("/api/v1/nowhere", 404)):
            with self.subTest(path):
                answer = self.rest.call("GET", path, headers={"X-Request-Id": "call-17"})
                self.assertEqual((answer.status, answer.headers["X-Request-Id"]), (status, "call-17"))
                if status != 200:
                    self.assertEqual(answer.json["callId"], "call-17")
                own = self.rest.call("GET", path)
                self.assertRegex(own.headers["X-Request-Id"], "^[0-9A-Za-z_-]{16,64}$")
        self.assertNotIn('"', self.rest.call("GET", "services", headers={"X-Request-Id": 'a"b'}).headers["X-Request-Id"])


if __name__ == "__main__":
    unittest.main()
