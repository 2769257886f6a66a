"""What each method of discovery and coordination answers to arguments that are empty, too long, not the caller's, over,
forgotten, or in a namespace that is none: an error of its own, which says what, where and what to do."""
import re

from lib.uccp import ROOT
from lib.wait import wait_until
from test_coordination import CoordinationTest

LONG = "x" * 300
GONE = "2a0000-5d1c"  # looks like a lease id, and is nobody's

# method: (verb, path, body). {} is a valid request but for what a row changes; "%s" in a path is the name.
CALLS = {
    "Register": ("POST", "services", {"serviceName": "n", "address": "10.0.0.1", "port": 1}),
    "Deregister": ("DELETE", "services/%s", None),
    "Discover": ("GET", "services/discover", {"name": "n"}),
    "Heartbeat": ("POST", "services/%s/heartbeat", {}),
    "ListServices": ("GET", "services", {}),
    "GetServiceMetadata": ("GET", "services/%s", {}),
    "UpdateServiceMetadata": ("PATCH", "services/%s", {"weight": 5}),
    "WatchServices": ("GET", "services:watch", {}),
    "ReportServiceCalls": ("POST", "services/%s:report", {}),
    "GetServiceCatalog": ("GET", "services:catalog", {}),
    "GetDependencyGraph": ("GET", "services:graph", {}),
    "AcquireLock": ("POST", "locks", {"name": "n", "waitTimeout": "0s"}),
    "TryLock": ("POST", "locks/%s:try", {}),
    "AcquireReadLock": ("POST", "locks/%s:read", {"waitTimeout": "0s"}),
    "ReleaseLock": ("DELETE", "locks/%s", {"leaseId": GONE}),
    "RenewLock": ("PUT", "locks/%s/renew", {"leaseId": GONE}),
    "GetLock": ("GET", "locks/%s", {}),
    "ListLocks": ("GET", "locks", {}),
    "TransferLock": ("POST", "locks/%s:transfer", {"leaseId": GONE, "newOwner": "o"}),
    "BreakLock": ("POST", "locks/%s:break", {}),
    "WatchLocks": ("GET", "locks:watch", {}),
    "GetLockStatistics": ("GET", "locks/%s/statistics", {}),
    "CheckFencingToken": ("GET", "locks/%s:check", {"fencingToken": 7}),
    "AcquireSemaphore": ("POST", "semaphores/%s:acquire", {"capacity": 1, "waitTimeout": "0s"}),
    "ReleaseSemaphore": ("POST", "semaphores/%s:release", {"leaseId": GONE}),
    "RenewSemaphore": ("POST", "semaphores/%s:renew", {"leaseId": GONE}),
    "GetSemaphore": ("GET", "semaphores/%s", {}),
    "ListSemaphores": ("GET", "semaphores", {}),
    "WaitBarrier": ("POST", "barriers/%s:wait", {"parties": 2, "waitTimeout": "0.1s"}),
    "GetBarrier": ("GET", "barriers/%s", {}),
    "ResetBarrier": ("POST", "barriers/%s:reset", {}),
    "CreateLatch": ("POST", "latches", {"name": "n", "count": 1}),
    "CountDownLatch": ("POST", "latches/%s:countDown", {}),
    "WaitLatch": ("GET", "latches/%s", {}),
    "DeleteLatch": ("DELETE", "latches/%s", {}),
    "ElectLeader": ("POST", "elections", {"group": "n", "candidate": {"id": "c"}}),
    "GetLeader": ("GET", "elections/%s", {}),
    "TransferLeadership": ("POST", "elections/%s:transfer", {"leaseId": GONE}),
    "RenewLeadership": ("POST", "elections/%s:renew", {"leaseId": GONE}),
    "ResignLeadership": ("POST", "elections/%s:resign", {"leaseId": GONE}),
    "WatchLeader": ("GET", "elections/%s:watch", {}),
    "ListElections": ("GET", "elections", {}),
}
# What each misses first when it is sent empty: field.
EMPTY = {
    "Register": "service.serviceName", "AcquireLock": "name", "ReleaseLock": "leaseId", "RenewLock": "leaseId",
    "TransferLock": "leaseId", "CheckFencingToken": "fencingToken", "ReleaseSemaphore": "leaseId", "RenewSemaphore": "leaseId",
    "WaitBarrier": "parties", "CreateLatch": "latch.name", "ElectLeader": "group", "RenewLeadership": "leaseId",
    "ResignLeadership": "leaseId",
}
# Where a name that is too long is refused: field.
OVERSIZE = {name: "id" for name in ("Deregister", "Heartbeat", "GetServiceMetadata", "ReportServiceCalls")}
OVERSIZE |= {"UpdateServiceMetadata": "service.id"}
OVERSIZE |= {name: "name" for name in CALLS if "%s" in CALLS[name][1] and CALLS[name][1].split("/")[0] in
             ("locks", "semaphores", "barriers", "latches")}
OVERSIZE |= {name: "group" for name in CALLS if CALLS[name][1].startswith("elections/%s")}
# The same in a body or a query: what is set, and the field.
OVERSIZE_ARGUMENT = {
    "Register": ({"serviceName": LONG}, "service.serviceName"), "Discover": ({"name": LONG}, "name"),
    "ListServices": ({"filter": "x" * 5000}, "filter"), "WatchServices": ({"since": "x" * 2000}, "since"),
    "GetServiceCatalog": ({"query": LONG}, "query"), "GetDependencyGraph": ({"serviceName": LONG}, "serviceName"),
    "AcquireLock": ({"name": LONG}, "name"), "ListLocks": ({"pageSize": 100000}, "pageSize"),
    "WatchLocks": ({"since": "x" * 2000}, "since"), "ListSemaphores": ({"pageToken": "x" * 5000}, "pageToken"),
    "CreateLatch": ({"name": LONG}, "latch.name"), "ElectLeader": ({"group": LONG}, "group"),
    "ListElections": ({"orderBy": LONG}, "orderBy"),
}
# What is not there: reason. Everything else answers an empty list, or makes it.
MISSING = {
    "Deregister": "SERVICE_NOT_FOUND", "Heartbeat": "SERVICE_NOT_FOUND", "GetServiceMetadata": "SERVICE_NOT_FOUND",
    "UpdateServiceMetadata": "SERVICE_NOT_FOUND", "ReportServiceCalls": "SERVICE_NOT_FOUND", "ReleaseLock": "LEASE_EXPIRED",
    "RenewLock": "LEASE_EXPIRED", "GetLock": "LOCK_NOT_FOUND", "TransferLock": "LEASE_EXPIRED", "BreakLock": "LOCK_NOT_FOUND",
    "GetLockStatistics": "LOCK_NOT_FOUND", "CheckFencingToken": "FENCING_TOKEN_STALE", "ReleaseSemaphore": "LEASE_EXPIRED",
    "RenewSemaphore": "LEASE_EXPIRED", "GetSemaphore": "SEMAPHORE_NOT_FOUND", "GetBarrier": "BARRIER_NOT_FOUND",
    "ResetBarrier": "BARRIER_NOT_FOUND", "CountDownLatch": "LATCH_NOT_FOUND", "WaitLatch": "LATCH_NOT_FOUND",
    "DeleteLatch": "LATCH_NOT_FOUND", "GetLeader": "ELECTION_NOT_FOUND", "TransferLeadership": "ELECTION_NOT_FOUND",
    "RenewLeadership": "CANDIDACY_ENDED", "ResignLeadership": "CANDIDACY_ENDED",
}
MAKES = {"Register", "AcquireLock", "TryLock", "AcquireReadLock", "AcquireSemaphore", "CreateLatch", "ElectLeader"}
LISTS = {"Discover", "ListServices", "GetServiceCatalog", "GetDependencyGraph", "ListLocks", "ListSemaphores", "ListElections"}
STREAMS = {"WatchServices", "WatchLocks", "WatchLeader"}
BY_LEASE = {"ReleaseLock", "RenewLock", "TransferLock", "ReleaseSemaphore", "RenewSemaphore", "RenewLeadership",
            "ResignLeadership"}


class BadInput(CoordinationTest):
    def send(self, method, name="n", change=None, without=(), namespace=None):
        verb, path, arguments = CALLS[method]
        arguments = {**(arguments or {}), **(change or {})}
        for key in without:
            arguments.pop(key, None)
        query = {"namespace": namespace} if namespace else {}
        path = path.replace("%s", name.replace("/", "%2F"))
        if verb in ("GET", "DELETE"):
            return self.rest.call(verb, path, query={**arguments, **query})
        # A namespace of a registration or a latch is a field of it.
        return self.rest.call(verb, path, {**arguments, **query})

    def assert_refused(self, method, response, status, reason, field=None):
        with self.subTest(method=method):
            self.assert_problem(response, status, reason, field)
            self.assertGreater(len(response.json["detail"]), 15, "says what is wrong")

    def test_the_table_has_every_method(self):
        for service, file in (("ServiceDiscovery", "discovery"), ("Coordination", "coordination")):
            text = (ROOT / "api" / "uccp" / "v1" / f"{file}.proto").read_text()
            block = text[text.index(f"service {service} {{"):]
            block = block[:block.index("\n}\n")]
            for method in re.findall(r"^  rpc (\w+)\(", block, re.M):
                self.assertIn(method, CALLS)
                self.assertIn(method, OVERSIZE | OVERSIZE_ARGUMENT)
                self.assertTrue(method in MISSING or method in MAKES | LISTS | STREAMS | {"WaitBarrier"}, method)

    def test_empty(self):
        for method, field in EMPTY.items():
            response = self.send(method, without=tuple(CALLS[method][2]))
            self.assert_refused(method, response, 400, "FIELD_INVALID", field)

    def test_oversize(self):
        for method, field in OVERSIZE.items():
            self.assert_refused(method, self.send(method, name=LONG), 400, "FIELD_INVALID", field)
        for method, (change, field) in OVERSIZE_ARGUMENT.items():
            self.assert_refused(method, self.send(method, change=change), 400, "FIELD_INVALID", field)

    def test_not_there(self):
        for method, reason in MISSING.items():
            status = 412 if method == "CheckFencingToken" else 404
            self.assert_refused(method, self.send(method, name="nobody"), status, reason)

    def test_a_namespace_that_is_none(self):
        for method in CALLS:
            response = self.send(method, namespace="No Such!")
            with self.subTest(method=method):
                self.assertEqual((response.status, response.reason), (400, "FIELD_INVALID"), response)
                self.assertTrue(any(name.endswith("namespace") for name in response.fields), response)

    def test_a_namespace_with_nothing_in_it(self):
        """A namespace need not be made first: there is nothing in it, which is what reads say."""
        for method, reason in MISSING.items():
            status = 412 if method == "CheckFencingToken" else 404
            self.assert_refused(method, self.send(method, name="nobody", namespace="empty-one"), status, reason)
        for method in LISTS:
            response = self.send(method, namespace="empty-one")
            with self.subTest(method=method):
                self.assertEqual(response.status, 200, response)
                self.assertEqual([v for v in response.json.values() if isinstance(v, list) and v], [])

    def hold(self, method, name, ttl="600s"):
        """Something of which `method` takes a lease id."""
        if "Semaphore" in method:
            return self.rest.post(f"semaphores/{name}:acquire", {"capacity": 1, "ttl": ttl, "owner": "holder"}).json["leaseId"]
        if "Leadership" in method:
            return self.rest.post("elections", {"group": name, "candidate": {"id": "holder"}, "ttl": ttl}).json["leaseId"]
        return self.rest.post("locks", {"name": name, "ttl": ttl, "owner": "holder"}).json["leaseId"]

    def test_wrong_owner(self):
        """A lease id of somebody else's hold, of another kind, or made up, opens nothing."""
        for method in sorted(BY_LEASE):
            reason = "CANDIDACY_ENDED" if "Leadership" in method else "LEASE_EXPIRED"
            own, other = self.hold(method, f"own-{method}"), self.hold(method, f"other-{method}")
            self.assert_refused(method, self.send(method, f"own-{method}", {"leaseId": other}), 404, reason)
            forged = own.split("-")[0] + "-1234"
            self.assert_refused(method, self.send(method, f"own-{method}", {"leaseId": forged}), 404, reason)
            self.assert_refused(method, self.send(method, f"own-{method}", {"leaseId": "no lease"}), 400, "LEASE_ID_INVALID",
                                "leaseId")
            self.assertIn(self.send(method, f"own-{method}", {"leaseId": own}).status, (200, 204), method)
        self.hold("TransferLeadership", "led")
        refused = self.send("TransferLeadership", "led", {"leaseId": GONE})
        self.assert_refused("TransferLeadership", refused, 412, "NOT_THE_LEADER")

    def test_expired_lease(self):
        leases = {method: self.hold(method, f"brief-{method}", "1s") for method in sorted(BY_LEASE)}
        service = self.rest.post("services", {"serviceName": "brief", "address": "10.0.0.9", "port": 9, "ttl": "1s"}).json["id"]
        # A wait for the last of them ends when it has expired, and those before it have.
        for method in sorted(BY_LEASE):
            if "Leadership" in method:
                self.rest.post("elections", {"group": f"brief-{method}", "candidate": {"id": "next"}, "waitTimeout": "20s"})
            elif "Semaphore" in method:
                self.rest.post(f"semaphores/brief-{method}:acquire", {"owner": "next"})
            else:
                self.rest.post("locks", {"name": f"brief-{method}", "owner": "next"})
        for method, lease in leases.items():
            reason = "CANDIDACY_ENDED" if "Leadership" in method else "LEASE_EXPIRED"
            self.assert_refused(method, self.send(method, f"brief-{method}", {"leaseId": lease}), 404, reason)
        wait_until(lambda: self.rest.get(f"services/{service}", consistency="linearizable").status == 404, what="its end")
        self.assert_refused("Heartbeat", self.send("Heartbeat", service), 404, "SERVICE_NOT_FOUND")

    def test_cursors(self):
        for method in STREAMS:
            self.assert_refused(method, self.send(method, change={"since": "nonsense"}), 400, "CURSOR_INVALID", "since")
            verb, path, _ = CALLS[method]
            ahead = "1.99999999" if method == "WatchServices" else "1.99999999.0"
            # Ahead of this cluster, so it is not one of its own: the stream begins, and its one item says so.
            with self.rest.stream(path.replace("%s", "n"), query={"since": ahead}) as stream:
                item = stream.next()
                self.assertEqual(item.get("end", {}).get("reason"), "COMPACTED", f"{method}: {item}")
