"""Clients of the door that speaks etcd's API: etcd's own Go library (tests/clients/etcd_go), and calls made by hand."""
import functools
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from lib.once import making
from lib.uccp import ROOT

SOURCE = ROOT / "tests" / "clients" / "etcd_go"
# Of etcdctl, whose defaults are for machines that have nothing else to do.
PATIENCE = ("--dial-timeout=20s", "--command-timeout=40s")


def go_client():
    """Builds it if it is not there, and answers its path. Skips the test where there is no Go."""
    if not shutil.which("go"):
        raise unittest.SkipTest("go is not installed")
    with making("etcd-go-client") as program:
        if program.exists() and program.stat().st_mtime >= max(path.stat().st_mtime for path in SOURCE.iterdir()):
            return program
        done = subprocess.run(["go", "build", "-o", program, "."], cwd=SOURCE, capture_output=True, text=True, timeout=280)
    if done.returncode == 0:
        return program
    if "dial tcp" in done.stderr or "no required module" in done.stderr or "proxy" in done.stderr:
        raise unittest.SkipTest("the Go modules cannot be had: " + done.stderr[-300:])
    raise AssertionError(done.stderr)


@functools.cache
def messages():
    """The messages of etcd's API by name, out of the door's .proto: messages()["PutRequest"](key=b"a")."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    folder = ROOT / "src" / "doors" / "etcd"
    with tempfile.NamedTemporaryFile() as file:
        subprocess.run(["protoc", "-I", folder, f"--descriptor_set_out={file.name}", folder / "etcd.proto"], check=True, timeout=60)
        described = descriptor_pb2.FileDescriptorSet.FromString(pathlib.Path(file.name).read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for one in described.file:
        pool.Add(one)
    return {name: message_factory.GetMessageClass(descriptor)
            for one in described.file for name, descriptor in pool.FindFileByName(one.name).message_types_by_name.items()}


class EtcdClient:
    """Calls the door for etcd's clients with the token of somebody, or as whose certificate the channel has. Every call raises
    grpc.RpcError when it is refused."""

    SERVICES = {"Lock": "v3lockpb", "Election": "v3electionpb"}

    def __init__(self, channel, token=None):
        self.channel = channel
        self.metadata = (("authorization", "Bearer " + token),) if token else ()

    def _path(self, name):
        return f"/{self.SERVICES.get(name.split('/')[0], 'etcdserverpb')}.{name}"

    def call(self, name, request, answer, metadata=(), timeout=30):
        """One request, one answer: call("KV/Put", PutRequest(...), "PutResponse")."""
        stub = self.channel.unary_unary(self._path(name), request_serializer=lambda message: message.SerializeToString(),
                                        response_deserializer=messages()[answer].FromString)
        return stub(request, timeout=timeout, metadata=(*self.metadata, *metadata))

    def stream(self, name, request, answer, timeout=60):
        """One request, many answers."""
        stub = self.channel.unary_stream(self._path(name), request_serializer=lambda message: message.SerializeToString(),
                                         response_deserializer=messages()[answer].FromString)
        return stub(request, timeout=timeout, metadata=self.metadata)

    def both(self, name, requests, answer, timeout=60):
        """Many requests, out of an iterator, and many answers."""
        stub = self.channel.stream_stream(self._path(name), request_serializer=lambda message: message.SerializeToString(),
                                          response_deserializer=messages()[answer].FromString)
        return stub(requests, timeout=timeout, metadata=self.metadata)
