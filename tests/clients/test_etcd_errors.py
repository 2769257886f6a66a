# timeout: 300
"""Bad requests, the same ones to the etcd API and to an etcd 3.4 beside it: codes and texts have to be the same.

What differs on purpose is in DIFFERENT, with the reason, and in docs/etcd.md."""
import pathlib
import queue
import shutil
import subprocess
import tempfile
import unittest

try:
    import grpc
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

from lib.uccp import ROOT
from test_etcd import EtcdTest
from test_etcd_move import Etcd

HUGE = "x" * 1_600_000
NO_LEASE = 4711
TAKEN = {"requestPut": {"key": "a", "value": "1"}}

# rpc, request and answer, a name, the request: as JSON, text where protobuf has bytes.
CASES = [
    ("KV/Range", "Range", "no key", {}),
    ("KV/Range", "Range", "compacted revision", {"key": "a", "revision": 2}),
    ("KV/Range", "Range", "future revision", {"key": "a", "revision": 1000}),
    ("KV/Range", "Range", "negative revision", {"key": "a", "revision": -5}),
    ("KV/Range", "Range", "negative limit", {"key": "a", "limit": -1}),
    ("KV/Range", "Range", "end before the key", {"key": "b", "rangeEnd": "a"}),
    ("KV/Put", "Put", "no key", {"value": "1"}),
    ("KV/Put", "Put", "lease that is none", {"key": "k", "value": "1", "lease": NO_LEASE}),
    ("KV/Put", "Put", "value beside ignore_value", {"key": "a", "value": "1", "ignoreValue": True}),
    ("KV/Put", "Put", "lease beside ignore_lease", {"key": "a", "lease": NO_LEASE, "ignoreLease": True}),
    ("KV/Put", "Put", "ignore_value of no key", {"key": "absent", "ignoreValue": True}),
    ("KV/Put", "Put", "ignore_lease of no key", {"key": "absent", "value": "1", "ignoreLease": True}),
    ("KV/Put", "Put", "too large", {"key": "a", "value": HUGE}),
    ("KV/DeleteRange", "DeleteRange", "no key", {}),
    ("KV/DeleteRange", "DeleteRange", "end before the key", {"key": "b", "rangeEnd": "a"}),
    ("KV/Txn", "Txn", "too many operations", {"success": [{"requestRange": {"key": "a"}}] * 129}),
    ("KV/Txn", "Txn", "too many comparisons", {"compare": [{"key": "a"}] * 129}),
    ("KV/Txn", "Txn", "key twice", {"success": [TAKEN, TAKEN]}),
    ("KV/Txn", "Txn", "key put and deleted",
     {"success": [TAKEN, {"requestDeleteRange": {"key": "a", "rangeEnd": "b"}}]}),
    ("KV/Txn", "Txn", "key twice in a nested one", {"success": [TAKEN, {"requestTxn": {"success": [TAKEN]}}]}),
    ("KV/Txn", "Txn", "comparison without key", {"compare": [{"version": 1}]}),
    ("KV/Txn", "Txn", "put without key", {"success": [{"requestPut": {}}]}),
    ("KV/Txn", "Txn", "range without key", {"success": [{"requestRange": {}}]}),
    ("KV/Txn", "Txn", "deletion without key", {"failure": [{"requestDeleteRange": {}}]}),
    ("KV/Txn", "Txn", "empty operation", {"success": [{}]}),
    ("KV/Txn", "Txn", "range of the future", {"success": [{"requestRange": {"key": "a", "revision": 1000}}]}),
    ("KV/Txn", "Txn", "range of what is compacted", {"success": [{"requestRange": {"key": "a", "revision": 2}}]}),
    ("KV/Txn", "Txn", "lease that is none", {"success": [{"requestPut": {"key": "k", "lease": NO_LEASE}}]}),
    ("KV/Txn", "Txn", "ignore_value of no key", {"success": [{"requestPut": {"key": "absent", "ignoreValue": True}}]}),
    ("KV/Compact", "Compact", "compacted already", {"revision": 2}),
    ("KV/Compact", "Compact", "future revision", {"revision": 1000}),
    ("KV/Compact", "Compact", "revision zero", {"revision": 0}),
    ("KV/Compact", "Compact", "negative revision", {"revision": -1}),
    ("Lease/LeaseGrant", "LeaseGrant", "taken id", {"id": 1234, "ttl": 60}),
    ("Lease/LeaseGrant", "LeaseGrant", "too long", {"ttl": 9_000_000_001}),
    ("Lease/LeaseGrant", "LeaseGrant", "no time", {"ttl": 0}),
    ("Lease/LeaseGrant", "LeaseGrant", "negative time", {"ttl": -1}),
    ("Lease/LeaseGrant", "LeaseGrant", "negative id", {"id": -7, "ttl": 60}),
    ("Lease/LeaseRevoke", "LeaseRevoke", "lease that is none", {"id": NO_LEASE}),
    ("Lease/LeaseTimeToLive", "LeaseTimeToLive", "lease that is none", {"id": NO_LEASE}),
    ("Maintenance/HashKV", "HashKv", "future revision", {"revision": 1000}),
    ("Maintenance/HashKV", "HashKv", "compacted revision", {"revision": 2}),
    ("Maintenance/MoveLeader", "MoveLeader", "member that is none", {"targetId": 4711}),
    ("Maintenance/MoveLeader", "MoveLeader", "nobody", {}),
]
LOCKS = [
    ("Lock/Lock", "Lock", "lease that is none", {"name": "l", "lease": NO_LEASE}),
    ("Lock/Unlock", "Unlock", "key that is none", {"key": "l/absent"}),
    ("Lock/Unlock", "Unlock", "no key", {}),
    ("Election/Campaign", "Campaign", "lease that is none", {"name": "e", "lease": NO_LEASE, "value": "v"}),
    ("Election/Leader", "Leader", "election without leader", {"name": "nobody"}),
    ("Election/Proclaim", "Proclaim", "no leader key", {"value": "v"}),
    ("Election/Proclaim", "Proclaim", "not the leader",
     {"leader": {"name": "e", "key": "e/absent", "rev": 7, "lease": NO_LEASE}, "value": "v"}),
    ("Election/Resign", "Resign", "no leader key", {}),
    ("Election/Resign", "Resign", "not the leader", {"leader": {"name": "e", "key": "e/absent", "rev": 7}}),
]
DIFFERENT = {
    # Leases last as long as was asked for; an etcd has a least time that follows from its election timeout.
    ("Lease/LeaseGrant", "no time"): ("OK", {"ttl": "1"}),
    ("Lease/LeaseGrant", "negative time"): ("OK", {"ttl": "1"}),
    # Clients draw ids from 63 bits.
    ("Lease/LeaseGrant", "negative id"): ("INVALID_ARGUMENT", "etcdserver: id must be at least 0, not -7"),
}
# What an etcd 3.4 ends of; later ones answer this.
ENDS_ETCD = [
    ("KV/Range", "Range", "unknown order", {"key": "a", "sortOrder": 17},
     ("INVALID_ARGUMENT", "etcdserver: invalid sort option")),
    ("KV/Range", "Range", "unknown sort target", {"key": "a", "sortTarget": 17},
     ("INVALID_ARGUMENT", "etcdserver: invalid sort option")),
]
STREAMS = [
    ("watch of what is compacted", {"createRequest": {"key": "a", "startRevision": 1}}),
    ("end before the key", {"createRequest": {"key": "b", "rangeEnd": "a"}}),
    ("negative start", {"createRequest": {"key": "a", "startRevision": -1}}),
]
ANSWERS = {"Compact": "HeaderResponse", "LeaseRevoke": "HeaderResponse", "MoveLeader": "HeaderResponse",
           "Unlock": "HeaderResponse", "Resign": "HeaderResponse", "Proclaim": "HeaderResponse"}
REQUESTS = {"Compact": "CompactionRequest"}
PACKAGES = {"Lock": "v3lockpb", "Election": "v3electionpb"}


def messages():
    """The messages of the etcd API, from the file that the server is built from."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "etcd.binpb"
        subprocess.run(["protoc", f"--descriptor_set_out={out}", f"-I{ROOT}/src/doors/etcd", "etcd.proto"], check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    # Bytes are text in the tables above: as strings they have the same form on the wire.
    for message in files.file[0].message_type:
        for field in message.field:
            if field.type == field.TYPE_BYTES:
                field.type = field.TYPE_STRING
    pool = descriptor_pool.DescriptorPool()
    pool.Add(files.file[0])
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"uccp.etcd.{name}"))


class Side:
    def __init__(self, channel, message):
        self.channel, self.message = channel, message

    def call(self, rpc, kind, request):
        """(code, text) of what it answers, or what tells of the answer that it is one."""
        package = PACKAGES.get(rpc.split("/")[0], "etcdserverpb")
        answer = self.message(ANSWERS.get(kind, f"{kind}Response"))
        stub = self.channel.unary_unary(f"/{package}.{rpc}", request_serializer=lambda m: m.SerializeToString(),
                                        response_deserializer=answer.FromString)
        made = json_format.ParseDict(request, self.message(REQUESTS.get(kind, f"{kind}Request"))())
        try:
            got = json_format.MessageToDict(stub(made, timeout=20))
        except grpc.RpcError as error:
            return error.code().name, error.details()
        return "OK", {key: value for key, value in got.items() if key in ("ttl", "count", "deleted", "succeeded")}

    def watch(self, *requests):
        """Flags and reason of each answer, sorted, until each watch was made and one is cancelled."""
        outgoing = queue.SimpleQueue()
        stub = self.channel.stream_stream("/etcdserverpb.Watch/Watch",
                                          request_serializer=lambda m: m.SerializeToString(),
                                          response_deserializer=self.message("WatchResponse").FromString)
        for request in requests:
            outgoing.put(json_format.ParseDict(request, self.message("WatchRequest")()))
        stream = stub(iter(outgoing.get, None), timeout=20)
        seen = []
        for answer in stream:
            seen.append((answer.watch_id, answer.created, answer.canceled, answer.compact_revision, answer.cancel_reason))
            if sum(created for _, created, _, _, _ in seen) == len(requests) and any(answer[2] for answer in seen):
                break
        outgoing.put(None)
        stream.cancel()
        return sorted(seen)


@unittest.skipIf(MISSING, MISSING or "")
@unittest.skipUnless(shutil.which("etcd"), "there is no etcd: tools/setup installs etcd-server")
class SameErrors(EtcdTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        etcd = Etcd(folder.name)
        cls.addClassCleanup(etcd.close)
        message, context = messages(), cls.node.context
        read = [pathlib.Path(context[name]).read_bytes() for name in ("ca", "key", "cert")]
        ours = grpc.secure_channel(context["etcd"], grpc.ssl_channel_credentials(*read))
        theirs = grpc.insecure_channel(etcd.url.removeprefix("http://"))
        for channel in (ours, theirs):
            cls.addClassCleanup(channel.close)
        cls.ours, cls.theirs = Side(ours, message), Side(theirs, message)
        # The same store on both: five revisions, all but the last two compacted, and a lease.
        for side in (cls.ours, cls.theirs):
            for number in range(5):
                side.call("KV/Put", "Put", {"key": "a", "value": f"{number}"})
            side.call("KV/Compact", "Compact", {"revision": 4})
            side.call("Lease/LeaseGrant", "LeaseGrant", {"id": 1234, "ttl": 600})

    def compare(self, cases):
        for rpc, kind, what, request in cases:
            with self.subTest(rpc=rpc, what=what):
                ours, theirs = self.ours.call(rpc, kind, request), self.theirs.call(rpc, kind, request)
                if (rpc, what) in DIFFERENT:
                    self.assertEqual(ours, DIFFERENT[rpc, what])
                    self.assertNotEqual(ours, theirs, "no longer different")
                else:
                    self.assertEqual(ours, theirs)
        self.assertEqual(self.theirs.call("KV/Range", "Range", {"key": "a"})[0], "OK", "the etcd is still there")

    def test_of_keys_leases_and_maintenance(self):
        self.compare(CASES)

    def test_of_what_ends_an_etcd(self):
        for rpc, kind, what, request, wanted in ENDS_ETCD:
            with self.subTest(rpc=rpc, what=what):
                self.assertEqual(self.ours.call(rpc, kind, request), wanted)

    def test_of_locks_and_elections(self):
        # The texts: for these services an etcd answers UNKNOWN whatever the error, here it has the code of its kind.
        for rpc, kind, what, request in LOCKS:
            with self.subTest(rpc=rpc, what=what):
                ours, theirs = self.ours.call(rpc, kind, request), self.theirs.call(rpc, kind, request)
                self.assertEqual(ours[1], theirs[1])
                self.assertEqual(ours[0] == "OK", theirs[0] == "OK")

    def test_of_watches(self):
        for what, request in STREAMS:
            with self.subTest(what=what):
                ours, theirs = self.ours.watch(request), self.theirs.watch(request)
                # Etcd 3.4 gives no reason with a compacted revision, later ones do.
                self.assertEqual([answer[:4] for answer in ours], [answer[:4] for answer in theirs])
                for mine, reason in zip(ours, (answer[4] for answer in theirs)):
                    self.assertTrue(reason in ("", mine[4]), (mine, reason))

    def test_of_a_number_of_a_watch_that_is_taken(self):
        twice = {"createRequest": {"key": "a", "watchId": 7}}
        self.assertEqual(self.ours.watch(twice, twice), self.theirs.watch(twice, twice))


if __name__ == "__main__":
    unittest.main()
