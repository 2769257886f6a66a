"""Image layouts made by hand: what tests of containers run, and what they must refuse."""
import gzip
import hashlib
import io
import json
import pathlib
import platform
import tarfile

BUSYBOX = pathlib.Path("/bin/busybox")
APPLETS = ("sh", "cat", "chmod", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mount", "od",
           "printf", "ps", "rm", "seq", "setsid", "sleep", "stat", "tail", "touch", "tr", "true", "wc", "yes")
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
GZIP_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def digest_of(content):
    return "sha256:" + hashlib.sha256(content).hexdigest()


def member(name, content=b"", kind=tarfile.REGTYPE, link="", mode=0o644):
    """An entry of a layer: (TarInfo, content)."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, link, mode, len(content)
    return info, content


def directory(name, mode=0o755):
    return member(name, kind=tarfile.DIRTYPE, mode=mode)


def link(name, target):
    return member(name, kind=tarfile.SYMTYPE, link=target)


def archive(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def busybox_layer():
    return [directory("bin"), member("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
            *(link("bin/" + name, "busybox") for name in APPLETS), directory("etc"), directory("tmp", mode=0o1777),
            member("etc/image", b"busybox\n")]


class Image:
    """Blobs and an index, to be written as an archive or a directory."""

    def __init__(self):
        self.blobs, self.manifests = {}, []

    def blob(self, content, kind):
        self.blobs[digest_of(content)] = content
        return {"mediaType": kind, "digest": digest_of(content), "size": len(content)}

    def add(self, layers, config=None, tag=None, architecture=ARCHITECTURE, layer_type=GZIP_LAYER):
        """An image of layers, each a list of members or the bytes of a blob."""
        blobs = [self.blob(layer if isinstance(layer, bytes) else gzip.compress(archive(layer), 1, mtime=0), layer_type)
                 for layer in layers]
        described = {"architecture": architecture, "os": "linux", "config": config or {}, "rootfs": {"type": "layers", "diff_ids": []}}
        manifest = {"schemaVersion": 2, "config": self.blob(json.dumps(described).encode(), "application/vnd.oci.image.config.v1+json"),
                    "layers": blobs}
        entry = self.blob(json.dumps(manifest).encode(), "application/vnd.oci.image.manifest.v1+json")
        entry["platform"] = {"os": "linux", "architecture": architecture}
        if tag:
            entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
        self.manifests.append(entry)
        return self

    def files(self):
        yield "oci-layout", b'{"imageLayoutVersion":"1.0.0"}'
        yield "index.json", json.dumps({"schemaVersion": 2, "manifests": self.manifests}).encode()
        for digest, content in self.blobs.items():
            yield "blobs/sha256/" + digest.removeprefix("sha256:"), content

    def tar(self):
        return archive([member(name, content) for name, content in self.files()])

    def write(self, folder):
        for name, content in self.files():
            path = pathlib.Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def busybox(**config):
    return Image().add([busybox_layer()], config={"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "Cmd": ["cat", "/etc/image"], **config})
