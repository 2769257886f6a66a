# needs: uccp
# timeout: 500
"""Objects that neither memory nor disk have room for, in a real Redis and in a server that speaks as S3 does (moto)."""
import contextlib
import gc
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import unittest

try:
    import uccp
    import uccp_memory
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.ports import free_ports
from lib.uccp import ROOT, NodeTest
from lib.wait import wait_until

WAIT_S = 90
MIB = 1 << 20
MOTO = ROOT / "build" / "venv-test" / "bin" / "moto_server"
SMALL = {"UCCP_AGENT_OBJECTS_MEMORY": "8Mi", "UCCP_AGENT_OBJECTS_DISK": "16Mi", "UCCP_AGENT_OBJECTS_EVICTION": "lru"}
# In the interpreter that has boto3: a user whose keys the server checks from then on.
MAKE_USER = """
import boto3, json, sys, urllib.request
endpoint = sys.argv[1]
make = lambda service: boto3.client(service, endpoint_url=endpoint, region_name="us-east-1",
                                    aws_access_key_id="first", aws_secret_access_key="first")
iam = make("iam")
iam.create_user(UserName="agent")
document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="agent", PolicyName="all", PolicyDocument=json.dumps(document))
key = iam.create_access_key(UserName="agent")["AccessKey"]
urllib.request.urlopen(urllib.request.Request(endpoint + "/moto-api/reset-auth", data=b"0", method="POST",
                                              headers={"Content-Type": "text/plain"}), timeout=60)
print(json.dumps({"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}))
"""
BUCKET = """
import boto3, os, sys
s3 = boto3.client("s3", endpoint_url=sys.argv[1], region_name="us-east-1")
if sys.argv[2] == "make":
    s3.create_bucket(Bucket="objects")
else:
    for one in s3.list_objects_v2(Bucket="objects").get("Contents", []):
        print(one["Key"], one["Size"])
"""


def listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@unittest.skipIf(MISSING, MISSING)
class TierTest(NodeTest):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="uccp-tier-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        (cls.port,) = free_ports(1)
        cls.environment = {**SMALL, **cls.start_tier()}
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    @classmethod
    def start(cls, command):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, cwd=cls.folder)
        cls.addClassCleanup(process.wait, WAIT_S)
        cls.addClassCleanup(process.kill)
        wait_until(lambda: listens(cls.port), WAIT_S, "the tier's server")
        return process

    def get(self, refs):
        return uccp.get(refs, timeout=WAIT_S)

    def stats(self):
        return self.client.memory.stats()

    def put_many(self, count):
        """More than memory and disk have room for."""
        values = [os.urandom(MIB // 2) + bytes(MIB // 2) for _ in range(count)]
        return values, [uccp.put(value) for value in values]

    def put_until_refused(self):
        """Puts until there is no room and the agent says why the tier does not help; answers that."""
        self.held = getattr(self, "held", [])
        packed = uccp_memory.Packed(uccp_memory.RAW, os.urandom(MIB), [])

        def refused():
            try:
                self.held.append(self.client.memory.put(packed, wait=0))
            except uccp_memory.MemoryRefused as error:
                self.assertEqual(error.reason, "MEMORY_FULL")
                return str(error) if "tier" in str(error) or "://" in str(error) else None
            return None
        return wait_until(refused, WAIT_S, "a put is refused, and says what is wrong with the tier")

    def release_held(self):
        for identity in self.held:
            self.client.memory.release(identity)
        self.held = []


class RedisTier(TierTest):
    password = "right"

    @classmethod
    def start_tier(cls):
        if not shutil.which("redis-server"):
            raise unittest.SkipTest("redis-server is not installed (Debian: redis-server)")
        cls.server = cls.start_redis()
        return {"UCCP_AGENT_OBJECTS_TIER": f"redis://127.0.0.1:{cls.port}/1",
                "UCCP_AGENT_OBJECTS_TIER_PASSWORD": cls.password}

    @classmethod
    def start_redis(cls):
        return cls.start(["redis-server", "--port", str(cls.port), "--bind", "127.0.0.1", "--save", "", "--appendonly",
                          "yes", "--dir", str(cls.folder), "--requirepass", "right", "--loglevel", "warning"])

    def redis(self, *words):
        done = subprocess.run(["redis-cli", "-p", str(self.port), "-a", "right", "--no-auth-warning", *words],
                              capture_output=True, text=True, timeout=60)
        return done.stdout.strip()


class Redis(RedisTier):
    def test_what_the_disk_is_full_of_goes_there_comes_back_and_ends(self):
        values, refs = self.put_many(50)
        wait_until(lambda: self.stats()["tier_objects"] >= 20, WAIT_S, "objects have moved")
        self.assertGreater(int(self.redis("-n", "1", "DBSIZE")), 0)
        self.assertEqual(self.get(refs), values)
        del refs
        gc.collect()
        wait_until(lambda: self.redis("-n", "1", "DBSIZE") == "0", WAIT_S, "nothing is left there")
        self.assertEqual(self.stats()["tier_objects"], 0)

    def test_a_server_that_is_gone_is_said_to_be_and_nothing_is_lost(self):
        values, refs = self.put_many(50)
        wait_until(lambda: self.stats()["tier_objects"] >= 20, WAIT_S, "objects have moved")
        self.server.kill()
        self.server.wait(WAIT_S)
        with self.assertRaisesRegex(uccp.Unavailable, f"redis://127.0.0.1:{self.port}: ") as caught:
            self.get(refs)
        self.assertEqual(caught.exception.reason, "TIER_UNAVAILABLE")
        type(self).server = self.start_redis()
        wait_until(lambda: self.redis("PING") == "PONG", WAIT_S, "Redis has read what it had")
        for ref, value in zip(refs, values, strict=True):
            wait_until(lambda ref=ref, value=value: self.there(ref) == value, WAIT_S, "it comes back")

    def there(self, ref):
        with contextlib.suppress(uccp.Unavailable):
            return self.get(ref)
        return None

    def test_a_damaged_value_is_the_loss_of_its_object_alone(self):
        values, refs = self.put_many(50)
        wait_until(lambda: self.stats()["tier_objects"] >= 20, WAIT_S, "objects have moved")
        key = next(one for one in self.redis("-n", "1", "KEYS", "*").splitlines()
                   if refs[0]._pending.identity.hex() in one)
        self.redis("-n", "1", "SETRANGE", key, "5000", "damage")
        with self.assertRaisesRegex(uccp.Corruption, "is damaged: it is not as it was written") as caught:
            self.get(refs[0])
        self.assertEqual(caught.exception.reason, "OBJECT_LOST")
        self.assertEqual(self.get(refs[1:]), values[1:])


class WrongPassword(RedisTier):
    password = "wrong"

    def test_puts_wait_and_say_why_until_it_is_right(self):
        said = self.put_until_refused()
        self.assertIn(f"redis://127.0.0.1:{self.port}: WRONGPASS", said)
        self.redis("CONFIG", "SET", "requirepass", "wrong")
        self.assertEqual(self.get(uccp.put(b"now" * MIB)), b"now" * MIB)
        self.release_held()


class S3Tier(TierTest):
    @classmethod
    def start_tier(cls):
        if not MOTO.exists():
            raise unittest.SkipTest(f"{MOTO} is not installed (tests/clients/requirements.txt)")
        cls.start([str(MOTO), "-H", "127.0.0.1", "-p", str(cls.port)])
        cls.endpoint = f"http://127.0.0.1:{cls.port}"
        cls.keys = json.loads(cls.boto(MAKE_USER))
        cls.prepare()
        return {"UCCP_AGENT_OBJECTS_TIER": f"s3://objects/some/prefix?endpoint={cls.endpoint}", **cls.agent_keys()}

    @classmethod
    def boto(cls, program, *words, **environment):
        return subprocess.run([str(MOTO.parent / "python3"), "-c", program, cls.endpoint, *words], check=True, timeout=WAIT_S,
                              stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}).stdout

    @classmethod
    def bucket(cls, what):
        return cls.boto(BUCKET, what, **cls.keys)

    @classmethod
    def prepare(cls):
        cls.bucket("make")

    @classmethod
    def agent_keys(cls):
        return cls.keys


class S3(S3Tier):
    def test_what_the_disk_is_full_of_goes_there_comes_back_and_ends(self):
        values, refs = self.put_many(50)
        wait_until(lambda: self.stats()["tier_objects"] >= 20, WAIT_S, "objects have moved")
        stored = [line.split() for line in self.bucket("list").splitlines()]
        self.assertTrue(all(key.startswith("some/prefix/") for key, _ in stored), stored)
        for key, size in stored:
            self.assertTrue(0.5 * MIB <= int(size) <= 0.6 * MIB, f"{key}: {size}: half is zeros, which zstd takes out")
        self.assertEqual(self.get(refs), values)
        del refs
        gc.collect()
        wait_until(lambda: self.bucket("list") == "", WAIT_S, "nothing is left there")


class S3WithoutBucket(S3Tier):
    @classmethod
    def prepare(cls):
        """There is none yet."""

    def test_puts_wait_and_say_why_until_it_is_there(self):
        said = self.put_until_refused()
        self.assertIn(f"s3://objects at {self.endpoint}", said)
        self.assertIn("NoSuchBucket", said)
        self.bucket("make")
        self.assertEqual(self.get(uccp.put(b"now" * MIB)), b"now" * MIB)
        self.release_held()


class S3WithWrongKeys(S3Tier):
    @classmethod
    def agent_keys(cls):
        return {**cls.keys, "AWS_SECRET_ACCESS_KEY": "wrong"}

    def test_puts_say_that_they_are_refused(self):
        said = self.put_until_refused()
        self.assertIn("403 SignatureDoesNotMatch", said)
        self.release_held()


class Settings(unittest.TestCase):
    def test_addresses_and_compressions_that_are_none_are_refused_at_once(self):
        from lib.uccp import AGENT, clean_environment
        for flag, value, said in (
            ("--objects-tier", "ftp://somewhere", "ftp://somewhere"),
            ("--objects-tier", "s3://bucket", "AWS_ACCESS_KEY_ID"),
            ("--objects-compression", "rar", "none, lz4, zstd or gzip"),
            ("--objects-tier-compression", "rar", "none, lz4, zstd or gzip"),
            ("--objects-listen", "nowhere", "HOST:PORT"),
            ("--objects-lease", "1ms", "1s or more"),
        ):
            with self.subTest(flag=flag, value=value):
                done = subprocess.run([str(AGENT), flag, value], capture_output=True, text=True, timeout=60,
                                      env=clean_environment())
                self.assertEqual(done.returncode, 2)
                self.assertIn(said, done.stderr)


if __name__ == "__main__":
    unittest.main()
