"""One tenant tries every method of the door for etcd's clients on what another tenant keeps there.

A client sees the namespace of its credential as its whole server. So nothing of the other tenant may come back, in keys,
values, leases, watches, counts or revisions; what the other holds may not stand in one's way, and may not be taken away.
"""
import pathlib
import queue
import unittest

try:
    import grpc
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib.etcd import EtcdClient, messages
from lib.tenants import SECRET, TwoTenants

EVERY = {"key": b"\0", "range_end": b"\0"}
KEY, LOCK, ELECTION = b"victim-key", b"victim-lock", b"victim-election"


@unittest.skipIf(MISSING, MISSING or "")
class EtcdIsolation(TwoTenants):
    agent = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        ca = pathlib.Path(cls.node.context["ca"]).read_bytes()
        cls.channel = grpc.secure_channel(cls.node.context["etcd"], grpc.ssl_channel_credentials(ca))
        cls.addClassCleanup(cls.channel.close)
        cls.owner = EtcdClient(cls.channel, cls.victim.token)
        cls.thief = EtcdClient(cls.channel, cls.rival.token)
        m, owner = messages(), cls.owner
        cls.lease = owner.call("Lease/LeaseGrant", m["LeaseGrantRequest"](ttl=3600), "LeaseGrantResponse").id
        cls.put(owner, KEY, SECRET.encode(), cls.lease)
        cls.lock = owner.call("Lock/Lock", m["LockRequest"](name=LOCK, lease=cls.lease), "LockResponse").key
        cls.leader = owner.call("Election/Campaign", m["CampaignRequest"](name=ELECTION, lease=cls.lease, value=SECRET.encode()),
                                "CampaignResponse").leader
        cls.before = cls.kept()

    @staticmethod
    def put(client, key, value, lease=0):
        return client.call("KV/Put", messages()["PutRequest"](key=key, value=value, lease=lease), "PutResponse")

    @staticmethod
    def everything(client):
        return client.call("KV/Range", messages()["RangeRequest"](**EVERY), "RangeResponse")

    @classmethod
    def kept(cls):
        """What the victim has: keys with values and revisions, and the lease."""
        m = messages()
        left = cls.owner.call("Lease/LeaseTimeToLive", m["LeaseTimeToLiveRequest"](id=cls.lease, keys=True), "LeaseTimeToLiveResponse")
        leader = cls.owner.call("Election/Leader", m["LeaderRequest"](name=ELECTION), "LeaderResponse")
        return ([pair.SerializeToString() for pair in cls.everything(cls.owner).kvs], sorted(left.keys), left.granted_ttl > 0,
                leader.kv.value)

    def setUp(self):
        self.assertIn(SECRET.encode(), self.everything(self.owner).SerializeToString(), "what is asked for is there")

    def tearDown(self):
        self.assertEqual(self.kept(), self.before, "what the victim has changed")

    def own_lease(self):
        return self.thief.call("Lease/LeaseGrant", messages()["LeaseGrantRequest"](ttl=60), "LeaseGrantResponse").id

    def assert_refused(self, code, name, request, answer, says=""):
        with self.assertRaises(grpc.RpcError) as caught:
            self.thief.call(name, request, answer)
        self.assertEqual(caught.exception.code(), code, caught.exception.details())
        self.assertIn(says, caught.exception.details())
        self.assertNotIn(SECRET, caught.exception.details())

    def test_a_range_counts_and_shows_ones_own(self):
        m = messages()
        self.put(self.thief, b"mine", b"1")
        self.assertEqual({pair.key for pair in self.everything(self.thief).kvs if not pair.lease}, {b"mine"})
        for request in (m["RangeRequest"](key=KEY), m["RangeRequest"](key=b"victim", range_end=b"victin", count_only=True),
                        m["RangeRequest"](key=KEY, revision=1), m["RangeRequest"](key=KEY, serializable=True)):
            try:
                self.assertEqual(self.thief.call("KV/Range", request, "RangeResponse").count, 0)
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.OUT_OF_RANGE, "a revision of one's own store that is not kept")

    def test_the_namespace_is_not_the_callers_choice_alone(self):
        for more in (("uccp-tenant", "victim"), ("uccp-namespace", "victim/default"), ("uccp-namespace", "../victim")):
            try:
                seen = self.thief.call("KV/Range", messages()["RangeRequest"](**EVERY), "RangeResponse", (more,)).SerializeToString()
            except grpc.RpcError as error:
                seen = error.details().encode()
            self.assertNotIn(SECRET.encode(), seen, more)

    def test_a_transaction_compares_reads_and_changes_ones_own(self):
        m = messages()
        compare = m["Compare"]
        every = [m["RequestOp"](request_range=m["RangeRequest"](**EVERY))]
        for guess in (compare(key=KEY, target=compare.VERSION, result=compare.GREATER, version=0),
                      compare(key=KEY, target=compare.VALUE, result=compare.EQUAL, value=SECRET.encode()),
                      compare(key=KEY, target=compare.LEASE, result=compare.EQUAL, lease=self.lease),
                      compare(key=b"victim", range_end=b"victin", target=compare.VERSION, result=compare.GREATER, version=0)):
            done = self.thief.call("KV/Txn", m["TxnRequest"](compare=[guess], success=every, failure=every), "TxnResponse")
            # A range without keys fulfils every comparison: only the single key may answer.
            if not guess.range_end:
                self.assertFalse(done.succeeded, guess)
            self.assertNotIn(SECRET.encode(), done.SerializeToString())
        changes = [m["RequestOp"](request_delete_range=m["DeleteRangeRequest"](**EVERY, prev_kv=True)),
                   m["RequestOp"](request_txn=m["TxnRequest"](success=every))]
        done = self.thief.call("KV/Txn", m["TxnRequest"](success=changes), "TxnResponse")
        self.assertNotIn(SECRET.encode(), done.SerializeToString())

    def test_puts_deletes_and_compactions_are_of_ones_own(self):
        m = messages()
        made = m["PutRequest"](key=KEY, value=b"rival", prev_kv=True)
        self.assertFalse(self.thief.call("KV/Put", made, "PutResponse").HasField("prev_kv"))
        deleted = self.thief.call("KV/DeleteRange", m["DeleteRangeRequest"](**EVERY, prev_kv=True), "DeleteRangeResponse")
        self.assertNotIn(SECRET.encode(), deleted.SerializeToString())
        revision = self.everything(self.thief).header.revision
        self.thief.call("KV/Compact", m["CompactionRequest"](revision=revision), "HeaderResponse")
        # The victim's own history is all there.
        first = min(m["KeyValue"].FromString(pair).create_revision for pair in self.before[0])
        self.owner.call("KV/Range", m["RangeRequest"](**EVERY, revision=first), "RangeResponse")

    def test_revisions_say_nothing_of_others(self):
        revision = self.everything(self.thief).header.revision
        for number in range(3):
            self.put(self.owner, b"busy", str(number).encode())
        self.owner.call("KV/DeleteRange", messages()["DeleteRangeRequest"](key=b"busy"), "DeleteRangeResponse")
        self.assertEqual(self.everything(self.thief).header.revision, revision)

    def test_leases_of_others_are_not_there(self):
        m = messages()
        listed = self.thief.call("Lease/LeaseLeases", m["RangeRequest"](), "LeaseLeasesResponse")
        self.assertNotIn(self.lease, [one.id for one in listed.leases])
        left = self.thief.call("Lease/LeaseTimeToLive", m["LeaseTimeToLiveRequest"](id=self.lease, keys=True), "LeaseTimeToLiveResponse")
        self.assertEqual((left.ttl, left.granted_ttl, list(left.keys)), (-1, 0, []))
        self.assert_refused(grpc.StatusCode.NOT_FOUND, "Lease/LeaseRevoke", m["LeaseRevokeRequest"](id=self.lease), "HeaderResponse")
        self.assert_refused(grpc.StatusCode.NOT_FOUND, "KV/Put", m["PutRequest"](key=b"k", lease=self.lease), "PutResponse")
        alive = self.thief.both("Lease/LeaseKeepAlive", iter([m["LeaseKeepAliveRequest"](id=self.lease)]), "LeaseKeepAliveResponse")
        self.assertEqual(next(alive).ttl, 0)
        alive.cancel()

    def test_a_watch_sees_ones_own(self):
        m, requests = messages(), queue.SimpleQueue()
        watch = self.thief.both("Watch/Watch", iter(requests.get, None), "WatchResponse")
        create = m["WatchCreateRequest"](**EVERY, prev_kv=True)
        requests.put(m["WatchRequest"](create_request=create))
        self.assertTrue(next(watch).created)
        self.put(self.owner, b"seen-by-nobody", SECRET.encode())
        self.owner.call("KV/DeleteRange", m["DeleteRangeRequest"](key=b"seen-by-nobody"), "DeleteRangeResponse")
        self.put(self.thief, b"marker", b"mine")
        # Changes come in their order: with the marker, what came before it would have come.
        answer = next(watch)
        self.assertEqual([event.kv.key for event in answer.events], [b"marker"])
        requests.put(None)
        watch.cancel()
        # From the beginning of history as well; what the first stream did not read yet is not for this one.
        requests = queue.SimpleQueue()
        requests.put(m["WatchRequest"](create_request=m["WatchCreateRequest"](**EVERY, start_revision=answer.header.revision)))
        again = self.thief.both("Watch/Watch", iter(requests.get, None), "WatchResponse")
        self.assertTrue(next(again).created)
        self.assertEqual([event.kv.key for event in next(again).events], [b"marker"])
        requests.put(None)
        again.cancel()

    def test_a_lock_of_this_name_is_another_one(self):
        m = messages()
        mine = self.thief.call("Lock/Lock", m["LockRequest"](name=LOCK, lease=self.own_lease()), "LockResponse")
        self.assertTrue(mine.key.startswith(LOCK))
        self.thief.call("Lock/Unlock", m["UnlockRequest"](key=self.lock), "HeaderResponse")
        self.thief.call("Lock/Unlock", m["UnlockRequest"](key=mine.key), "HeaderResponse")

    def test_an_election_of_this_name_is_another_one(self):
        m = messages()
        self.assert_refused(grpc.StatusCode.UNKNOWN, "Election/Leader", m["LeaderRequest"](name=ELECTION), "LeaderResponse", "no leader")
        self.assert_refused(grpc.StatusCode.UNKNOWN, "Election/Proclaim", m["ProclaimRequest"](leader=self.leader, value=b"usurper"),
                            "HeaderResponse", "not leader")
        self.thief.call("Election/Resign", m["ResignRequest"](leader=self.leader), "HeaderResponse")
        mine = self.thief.call("Election/Campaign", m["CampaignRequest"](name=ELECTION, lease=self.own_lease(), value=b"rival"),
                               "CampaignResponse")
        seen = next(self.thief.stream("Election/Observe", m["LeaderRequest"](name=ELECTION), "LeaderResponse"))
        self.assertEqual(seen.kv.value, b"rival")
        self.thief.call("Election/Resign", m["ResignRequest"](leader=mine.leader), "HeaderResponse")

    def test_maintenance_is_for_who_runs_the_cluster(self):
        m = messages()
        blob = b"".join(part.blob for part in self.thief.stream("Maintenance/Snapshot", m["RangeRequest"](), "SnapshotResponse"))
        self.assertNotIn(SECRET.encode(), blob)
        self.assert_refused(grpc.StatusCode.PERMISSION_DENIED, "Maintenance/MoveLeader", m["MoveLeaderRequest"](target_id=1),
                            "HeaderResponse")


if __name__ == "__main__":
    unittest.main()
