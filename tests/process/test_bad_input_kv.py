"""What each method of the key-value store answers to arguments that are empty, too long, another's, of a lease that ended,
of a revision that is compacted or not reached, or in a namespace that is none: an error of its own."""
import re

from lib.uccp import ROOT
from lib.wait import wait_until
from test_kv import KvTest

LONG = "x" * 5000
ENDED = "4711"  # a lease that nobody has
ONE_PUT = {"key": "k", "value": "1"}

# method: (verb, path, arguments). "%s" in a path is the key, or the number of a lease.
CALLS = {
    "Put": ("PUT", "kv/%s", {"value": "1"}),
    "Get": ("GET", "kv/%s", {}),
    "Range": ("GET", "kv", {"prefix": "k"}),
    "Delete": ("DELETE", "kv/%s", {}),
    "Txn": ("POST", "kv:txn", {"success": [{"put": ONE_PUT}]}),
    "Compact": ("POST", "kv:compact", {"revision": 1}),
    "Watch": ("GET", "kv:watch", {"prefix": "k"}),
    "ProbeWatches": ("GET", "kv:probe", {"watchIds": 77}),
    "GrantLease": ("POST", "kv-leases", {"ttl": "600s"}),
    "RevokeLease": ("DELETE", "kv-leases/%s", {}),
    "KeepLeaseAlive": ("POST", "kv-leases/%s:keepalive", {}),
    "GetLease": ("GET", "kv-leases/%s", {}),
    "ListLeases": ("GET", "kv-leases", {}),
    "GetStore": ("GET", "kv-store", {}),
    "SetStoreQuota": ("PUT", "kv-store", {}),
    "HashStore": ("GET", "kv-store:hash", {}),
    "GetHistory": ("GET", "kv/%s:history", {}),
    "Diff": ("GET", "kv:diff", {"prefix": "k"}),
    "Rollback": ("POST", "kv:rollback", {"prefix": "k", "revision": 1}),
}
BY_LEASE = ("RevokeLease", "KeepLeaseAlive", "GetLease")
BY_KEY = ("Put", "Get", "Delete", "GetHistory")
# What is changed, reason, field.
EMPTY = {
    "Txn": [({"success": [{"put": {}}]}, "FIELD_INVALID", "success[0].put.key"),
            ({"success": [{}]}, "TXN_INVALID", None),
            ({"compare": [{"version": 1}]}, "TXN_INVALID", None),
            ({"compare": [{"key": "k"}]}, "TXN_INVALID", None),
            ({"success": [{"delete": {}}]}, "RANGE_INVALID", "key")],
    "Compact": [({"revision": 0}, "FIELD_INVALID", "revision")],
    "ProbeWatches": [({"watchIds": []}, "FIELD_INVALID", "watchIds")],
    "Rollback": [({"revision": 0}, "FIELD_INVALID", "revision"), ({"prefix": ""}, "RANGE_INVALID", "key"),
                 ({"prefix": "", "validateOnly": True}, "RANGE_INVALID", "key")],
}
OVERSIZE = {
    "Put": [({"value": "x" * (2 << 20)}, "KV_REQUEST_TOO_LARGE", None)],
    "Range": [({"prefix": LONG}, "FIELD_INVALID", "prefix"), ({"limit": -1}, "FIELD_INVALID", "limit")],
    "Txn": [({"success": [{"put": {"key": f"k{i}"}} for i in range(129)]}, "TXN_TOO_LARGE", None),
            ({"compare": [{"key": LONG, "version": 1}]}, "FIELD_INVALID", "compare[0].key")],
    "Compact": [({"revision": str(10 ** 20)}, "FIELD_INVALID", "revision")],
    "Watch": [({"since": "x" * 65}, "FIELD_INVALID", "since"), ({"prefix": LONG}, "FIELD_INVALID", "prefix"),
              ({"progressInterval": "2h"}, "FIELD_INVALID", "progressInterval")],
    "ProbeWatches": [({"watchIds": 10 ** 20}, "FIELD_INVALID", "watchIds")],
    "GrantLease": [({"ttl": "99999999999s"}, "FIELD_INVALID", "ttl"), ({"id": -1}, "FIELD_INVALID", "id")],
    "ListLeases": [({"pageSize": 1001}, "FIELD_INVALID", "pageSize"), ({"filter": LONG}, "FIELD_INVALID", "filter")],
    "SetStoreQuota": [({"keysMax": -1}, "FIELD_INVALID", "keysMax"), ({"bytesMax": "1Zi"}, "FIELD_INVALID", "bytesMax")],
    "HashStore": [({"revision": -1}, "FIELD_INVALID", "revision")],
    "GetHistory": [({"limit": 1001}, "FIELD_INVALID", "limit")],
    "Diff": [({"limit": 1001}, "FIELD_INVALID", "limit"), ({"prefix": LONG}, "FIELD_INVALID", "prefix")],
    "Rollback": [({"prefix": LONG}, "FIELD_INVALID", "prefix")],
}
# What names a revision: the changes that make it `revision`.
AT_REVISION = {
    "Get": [lambda revision: {"revision": revision}],
    "Range": [lambda revision: {"revision": revision}],
    "Txn": [lambda revision: {"success": [{"range": {"key": "k", "revision": revision}}]}],
    "Compact": [lambda revision: {"revision": revision}],
    "HashStore": [lambda revision: {"revision": revision}],
    "Diff": [lambda revision: {"fromRevision": revision}, lambda revision: {"toRevision": revision}],
    "Rollback": [lambda revision: {"revision": revision},
                 lambda revision: {"revision": revision, "validateOnly": True}],
}


class BadInput(KvTest):
    def send(self, method, name="k", change=None, namespace=None):
        verb, path, arguments = CALLS[method]
        arguments = {**arguments, **(change or {}), **({"namespace": namespace} if namespace else {})}
        path = path.replace("%s", str(name))
        if verb in ("GET", "DELETE"):
            return self.rest.call(verb, path, query=arguments)
        return self.rest.call(verb, path, arguments)

    def assert_refused(self, method, response, status, reason, field=None):
        with self.subTest(method=method):
            self.assert_problem(response, status, reason, field)
            self.assertGreater(len(response.json["detail"]), 10, "says what is wrong")

    def test_the_table_has_every_method(self):
        text = (ROOT / "api" / "uccp" / "v1" / "kv.proto").read_text()
        block = text[text.index("service KeyValue {"):]
        methods = re.findall(r"^  rpc (\w+)\(", block[:block.index("\n}\n")], re.M)
        self.assertEqual(sorted(methods), sorted(CALLS))
        # The one that takes nothing but a namespace.
        self.assertEqual(set(methods) - set(OVERSIZE) - set(BY_KEY) - set(BY_LEASE), {"GetStore"})

    def test_empty(self):
        before = self.rest.get("kv-store").json["revision"]
        for method, rows in EMPTY.items():
            for change, reason, field in rows:
                self.assert_refused(method, self.send(method, change=change), 400, reason, field)
        for method in BY_LEASE:
            self.assert_refused(method, self.send(method, 0), 400, "FIELD_INVALID", "id")
        for method in ("Put", "Get", "Delete"):
            self.assert_refused(method, self.send(method, ""), 404, "ROUTE_NOT_FOUND")
        self.assertEqual(self.rest.get("kv-store").json["revision"], before, "nothing was changed")

    def test_oversize(self):
        for method, rows in OVERSIZE.items():
            for change, reason, field in rows:
                self.assert_refused(method, self.send(method, change=change), 400, reason, field)
        for method in BY_KEY:
            self.assert_refused(method, self.send(method, LONG), 400, "FIELD_INVALID", "key")
        for method in BY_LEASE:
            self.assert_refused(method, self.send(method, 10 ** 20), 400, "FIELD_INVALID", "id")
            self.assert_refused(method, self.send(method, "lease"), 400, "FIELD_INVALID", "id")

    def test_not_there(self):
        for namespace in (None, "empty-one"):
            for method in ("Get", "GetHistory"):
                self.assert_refused(method, self.send(method, "nothing", namespace=namespace), 404, "KEY_NOT_FOUND")
            for change in ({"value": "", "ignoreValue": True}, {"ignoreLease": True}):
                refused = self.send("Put", "nothing", change, namespace)
                self.assert_refused("Put", refused, 404, "KEY_NOT_FOUND")
            self.assert_refused("ProbeWatches", self.send("ProbeWatches", namespace=namespace), 404, "WATCH_NOT_FOUND")
            gone = self.send("Delete", "nothing", namespace=namespace)
            self.assertEqual((gone.status, gone.json.get("deleted", 0)), (200, 0), "what is gone stays gone")

    def test_another_revision_lease_or_range_than_it_is(self):
        revision = self.put("owned", "1")
        for method in ("Put", "Delete"):
            refused = self.send(method, "owned", {"ifMatch": str(revision + 1)})
            self.assert_refused(method, refused, 412, "ETAG_MISMATCH")
            self.assert_refused(method, self.send(method, "owned", {"ifMatch": "mine"}), 400, "FIELD_INVALID", "ifMatch")
        self.assert_refused("Put", self.send("Put", "owned", {"ignoreValue": True}), 400, "VALUE_PROVIDED", "value")
        self.assertEqual(self.rest.get("kv/owned").json["modRevision"], revision)
        taken = self.send("GrantLease").json["id"]
        self.assert_refused("GrantLease", self.send("GrantLease", change={"id": taken}), 409, "LEASE_EXISTS")
        # A lease belongs to its namespace.
        for method in BY_LEASE:
            self.assert_refused(method, self.send(method, taken, namespace="other"), 404, "LEASE_NOT_FOUND")
        refused = self.send("Put", "k", {"lease": taken}, "other")
        self.assert_refused("Put", refused, 404, "LEASE_NOT_FOUND")
        for method in ("Range", "Diff", "Watch", "Rollback"):
            refused = self.send(method, change={"rangeEnd": "z"})
            self.assert_refused(method, refused, 400, "RANGE_INVALID", "rangeEnd")

    def test_expired_lease(self):
        lease = self.send("GrantLease", change={"ttl": "1s"}).json["id"]
        self.put("brief", "1", lease=lease)
        wait_until(lambda: self.rest.get("kv/brief").status == 404, what="the end of the lease")
        for number in (lease, ENDED):
            for method in BY_LEASE:
                self.assert_refused(method, self.send(method, number), 404, "LEASE_NOT_FOUND")
            self.assert_refused("Put", self.send("Put", "brief", {"lease": number}), 404, "LEASE_NOT_FOUND")
            txn = {"success": [{"put": {"key": "before"}}, {"put": {**ONE_PUT, "lease": number}}]}
            self.assert_refused("Txn", self.send("Txn", change=txn), 404, "LEASE_NOT_FOUND")
        self.assertEqual(self.rest.get("kv/before").status, 404, "a transaction that fails changes nothing")

    def test_revisions_that_are_compacted_or_not_reached(self):
        for value in "1234":
            kept = self.put("k", value)
        self.assertEqual(self.send("Compact", change={"revision": kept, "physical": True}).status, 200)
        for method, changes in AT_REVISION.items():
            for change in changes:
                refused = self.send(method, change=change(kept - 1))
                self.assert_refused(method, refused, 412, "REVISION_COMPACTED")
                self.assertIn(str(kept), refused.json["detail"], "says the oldest that can be read")
                refused = self.send(method, change=change(kept + 1000))
                self.assert_refused(method, refused, 400, "REVISION_FUTURE", "revision")
                self.assertIn(str(kept), refused.json["detail"], "says the newest")
        with self.rest.stream("kv:watch", query={"startRevision": kept - 1}) as stream:
            last = stream.until(lambda item: "end" in item)[-1]
            self.assertEqual((last["end"]["reason"], last["compactRevision"]), ("COMPACTED", kept))
        self.assert_refused("Watch", self.send("Watch", change={"since": "nonsense"}), 400, "CURSOR_INVALID", "since")

    def test_quotas_of_a_namespace(self):
        def send(method, name="k", **change):
            return self.send(method, name, change, namespace="small")

        self.assertEqual(send("SetStoreQuota", keysMax=2, leasesMax=1, bytesMax=2000).status, 200)
        for name in ("a", "b"):
            self.assertEqual(send("Put", name).status, 200)
        self.assert_refused("Put", send("Put", "c"), 429, "KV_KEYS_EXHAUSTED")
        self.assert_refused("Txn", send("Txn", success=[{"put": {"key": "c"}}]), 429, "KV_KEYS_EXHAUSTED")
        self.assertEqual(send("Put", "a", value="what is there already").status, 200)
        self.assertEqual(send("GrantLease").status, 201)
        self.assert_refused("GrantLease", send("GrantLease"), 429, "LEASES_EXHAUSTED")
        self.assert_refused("Put", send("Put", "a", value="x" * 3000), 429, "KV_BYTES_EXHAUSTED")
        self.assertEqual(send("Delete", "b").status, 200, "deleting still works")
        self.assertEqual(send("Put", "c").status, 200)
        self.assertEqual(self.send("Put", "elsewhere").status, 200, "other namespaces are not concerned")

    def test_a_namespace_that_is_none(self):
        for method in CALLS:
            response = self.send(method, "1", namespace="No Such!")
            self.assert_refused(method, response, 400, "FIELD_INVALID", "namespace")
