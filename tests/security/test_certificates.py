# timeout: 420
"""Certificates while nodes run: a new authority, renewal, files that change, revocation; and who notices it."""
import base64
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import ssl
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request

from lib import credentials
from lib.cluster import Cluster
from lib.credentials import openssl
from lib.ports import free_ports
from lib.rest import Rest
from lib.uccp import AGENT, CLI, SERVER, Node, clean_environment, require
from lib.wait import wait_until


def names_of(text):
    return re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", text, re.S)


def shown_by(address, ca=None):
    """The certificate that a port shows, as text, and whether `ca` is enough to trust it."""
    done = openssl("s_client", "-connect", address, *(["-verify_return_error", "-CAfile", ca] if ca else []), "-tls1_3",
                   "-alpn", "h2,http/1.1", check=False)
    found = names_of(done.stdout.decode())
    return (found[0] if found else ""), b"Verify return code: 0 (ok)" in done.stdout


def field(pem, name):
    """Of a certificate; empty if there is none: a handshake may fail while certificates change."""
    return pem and openssl("x509", "-noout", f"-{name}", stdin=pem.encode()).stdout.decode().strip().partition("=")[2]


def metric(address, name):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        found = re.findall(rf"^{name}(\{{[^}}]*\}})? (\S+)$", answer.read().decode(), re.M)
    return {labels: float(value) for labels, value in found}


class Load(threading.Thread):
    """Calls a node all the time, half of the calls on new connections, with the authorities of the file as it is then."""

    def __init__(self, address, ca, token, leaders=1):
        super().__init__(daemon=True)
        self.address, self.ca, self.token = address, ca, token
        # On a busy machine a leader may change by itself, which is no fault of certificates: such answers are asked for again.
        self.again = (503, 504) if leaders > 1 else ()
        self.ended = threading.Event()
        self.done, self.failures, self.issuers = 0, [], set()

    def run(self):
        kept = Rest(self.address, self.ca, token=self.token, timeout=30)
        while not self.ended.is_set():
            fresh = None
            try:
                for rest in (kept, fresh := Rest(self.address, self.ca, token=self.token, timeout=30)):
                    answer = rest.post("services", {"serviceName": "load", "address": "10.0.0.1", "port": 1})
                    if answer.status != 201 and answer.status not in self.again:
                        self.failures.append(repr(answer))
                    self.done += 1
                issuer = fresh.connection.sock.getpeercert()["issuer"]
                self.issuers.add(issuer)
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            finally:
                if fresh is not None:
                    fresh.close()
        kept.close()

    def stop(self):
        self.ended.set()
        self.join(30)


def is_cut(connection):
    """Whether the other end has closed the connection."""
    connection.sock.settimeout(0.05)
    try:
        return connection.sock.recv(1) == b""
    except (ssl.SSLWantReadError, TimeoutError):
        return False
    except OSError:
        return True


def rotate(cli, *arguments):
    """Rotates as soon as the cluster can, which is about a second after its start."""
    def done():
        answer = cli("certificate", "rotate", "-o", "json", *arguments)
        return None if b"feature level" in answer.stderr else answer
    answer = wait_until(done, 20, "the feature level that rotation needs")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


class OneNode(unittest.TestCase):
    def setUp(self):
        require(SERVER, CLI, AGENT)

    def start(self, *flags, agent=False):
        node = Node(agent=agent, flags=flags)
        self.addCleanup(node.close)
        return node.start()

    def certificates(self, node):
        done = node.cli("certificate", "list", "-o", "json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def authorities(self, node):
        return [c for c in self.certificates(node) if c["kind"] == "AUTHORITY"]

    def test_a_new_authority_takes_over_and_no_call_fails(self):
        node = self.start(agent=True)
        pki = node.dir / "pki"
        old_ca = node.base / "old-ca.crt"
        shutil.copy(pki / "ca.crt", old_ca)
        shutil.copy(pki / "admin.crt", node.base / "old.crt")
        shutil.copy(pki / "admin.key", node.base / "old.key")
        load = [Load(node.context["https"], pki / "ca.crt", node.context["token"]) for _ in range(2)]
        kept = node.client(cert=node.base / "old.crt", key=node.base / "old.key", token=None)
        self.addCleanup(kept.close)
        self.assertEqual(kept.get("services").status, 200)
        for thread in load:
            thread.start()
        made = rotate(node.cli, "--scope", "AUTHORITY", "--overlap", "12s")["certificates"][0]
        self.assertEqual(made["kind"], "AUTHORITY")
        refused = node.cli("certificate", "rotate", "--scope", "AUTHORITY")
        self.assertIn(b"still trusted", refused.stderr)
        # In the first half both are trusted and the old one signs: a client that knows only it goes on.
        wait_until(lambda: len(names_of((pki / "ca.crt").read_text())) == 2, 20, "both authorities in ca.crt")
        self.assertTrue(shown_by(node.context["https"], old_ca)[1])
        # Then the new one does.
        for port in ("https", "grpc", "etcd"):
            wait_until(lambda: made["subject"] in field(shown_by(node.context[port])[0], "issuer"), 30, f"a new one on {port}")
        self.assertEqual(kept.get("services").status, 200)
        wait_until(lambda: [a["fingerprint"] for a in self.authorities(node)] == [made["fingerprint"]], 30, "the end of the old one")
        wait_until(lambda: is_cut(kept.connection), 30, "the end of a connection with an old certificate")
        for thread in load:
            thread.stop()
        self.assertEqual([thread.failures for thread in load], [[], []])
        self.assertTrue(all(thread.done > 20 for thread in load), [thread.done for thread in load])
        self.assertTrue(all(len(thread.issuers) == 2 for thread in load), "the old and the new authority were met")
        self.assertFalse(shown_by(node.context["https"], old_ca)[1], "the old authority is no longer enough")
        with self.assertRaises((OSError, http.client.HTTPException)):
            late = Rest(node.context["https"], pki / "ca.crt", cert=node.base / "old.crt", key=node.base / "old.key")
            late.get("services")
        # The files beside it were renewed, the agent has come back with them, and a restart finds all of it.
        self.assertEqual(node.client(cert=pki / "admin.crt", key=pki / "admin.key", token=None).get("services").status, 200)
        self.assertEqual(node.run("true")["status"], "SUCCEEDED")
        node.restart()
        self.assertEqual([a["fingerprint"] for a in self.authorities(node)], [made["fingerprint"]])
        self.assertEqual(node.run("true")["status"], "SUCCEEDED")

    def test_certificates_renew_themselves_before_they_end(self):
        node = self.start("--certificate-lifetime", "12s", agent=True)
        load = Load(node.context["https"], node.dir / "pki" / "ca.crt", node.context["token"])
        load.start()
        serials = {field(shown_by(node.context["https"])[0], "serial")}

        def renewed():
            serials.add(field(shown_by(node.context["https"])[0], "serial"))
            return len(serials - {""}) >= 3

        wait_until(renewed, 60, "two renewals")
        load.stop()
        self.assertEqual(load.failures, [])
        self.assertEqual(node.run("true")["status"], "SUCCEEDED")
        left = metric(node.context["metrics"], "uccp_certificate_expiry_seconds")['{certificate="server"}']
        self.assertTrue(0 < left <= 12, left)
        self.assertGreaterEqual(sum(metric(node.context["metrics"], "uccp_certificates_issued_total").values()), 2)

    def test_a_command_renews_the_nodes_certificates_at_once(self):
        node = self.start()
        before = field(shown_by(node.context["grpc"])[0], "serial")
        told = rotate(node.cli)["certificates"]
        self.assertEqual([c["nodeId"] for c in told], ["n1"])
        now = field(shown_by(node.context["grpc"])[0], "serial")
        self.assertNotEqual(now, before)
        self.assertEqual(now.lower().lstrip("0"), told[0]["serial"].lstrip("0"))
        record = json.loads(node.cli("audit", "search", "-o", "json").stdout)
        self.assertIn("uccp.v1.Administration/RotateCertificates", [r["method"] for r in record])

    def test_a_revoked_certificate_is_refused_and_its_connections_are_closed(self):
        node = self.start()
        pki = node.dir / "pki"
        # Its serial number begins with a zero when it is written in hexadecimal: tools differ in whether they show that.
        number = 0x0a << 56 | int.from_bytes(os.urandom(7), "big")
        cert, key = credentials.client_certificate(node.base, "vic", pki / "ca.crt", pki / "ca.key", "viewer", serial=number)
        other = credentials.client_certificate(node.base, "val", pki / "ca.crt", pki / "ca.key", "viewer")
        clients = [node.client(cert=c, key=k, token=None) for c, k in ((cert, key), other)]
        for client in clients:
            self.assertEqual(client.get("services").status, 200)
        # A gRPC connection that is open and idle.
        raw = ssl.create_default_context(cafile=pki / "ca.crt")
        raw.set_alpn_protocols(["h2"])
        raw.load_cert_chain(cert, key)
        host, _, port = node.context["grpc"].rpartition(":")
        grpc = http.client.HTTPSConnection(host, int(port), context=raw)
        grpc.connect()
        grpc.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")
        serial = field(cert.read_text(), "serial")
        done = node.cli("certificate", "revoke", serial, "--reason", "lost")
        self.assertEqual(done.returncode, 0, done.stderr)

        def ended():
            grpc.sock.settimeout(0.05)
            try:
                while grpc.sock.recv(4096):
                    pass
                return True
            except TimeoutError:
                return False
            except OSError:
                return True

        wait_until(lambda: is_cut(clients[0].connection), 20, "the end of the REST connection")
        wait_until(ended, 20, "the end of the gRPC connection")
        for port in ("https", "grpc", "etcd"):
            with self.subTest(port):
                alert = openssl("s_client", "-connect", node.context[port], "-CAfile", pki / "ca.crt", "-cert", cert, "-key", key,
                                "-tls1_3", "-alpn", "h2,http/1.1", "-ign_eof", stdin=b"GET / HTTP/1.1\r\n\r\n", check=False)
                self.assertIn(b"certificate revoked", alert.stderr)
        self.assertEqual(clients[1].get("services").status, 200, "another certificate goes on")
        # The list of the authority says so to everybody else.
        answer = node.rest.get("certificates").json
        (node.base / "crl.pem").write_text(answer["crlPem"])
        checked = openssl("verify", "-CAfile", pki / "ca.crt", "-crl_check", "-CRLfile", node.base / "crl.pem", cert, check=False)
        self.assertIn(b"certificate revoked", checked.stderr)
        openssl("verify", "-CAfile", pki / "ca.crt", "-crl_check", "-CRLfile", node.base / "crl.pem", other[0])
        node.restart()
        with self.assertRaises((OSError, http.client.HTTPException)):
            Rest(node.context["https"], pki / "ca.crt", cert=cert, key=key).get("services")


class Outside(unittest.TestCase):
    """A node whose certificates come from files that somebody else keeps."""

    process = None

    def setUp(self):
        require(SERVER, CLI)
        folder = tempfile.TemporaryDirectory(prefix="uccp-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.ca, self.ca_key = credentials.new_authority(self.folder, "the outside CA")
        self.use(*self.server_certificate("first"))
        self.crl = self.folder / "crl.pem"
        self.revoke()
        self.client_cert = credentials.client_certificate(self.folder, "vic", self.ca, self.ca_key, "viewer")
        self.start()

    def start(self, more="", **environment):
        """The node with further lines in its configuration; again, if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        grpc, https, metrics, etcd, dns = free_ports(5)
        self.https, self.grpc, self.metrics = f"127.0.0.1:{https}", f"127.0.0.1:{grpc}", f"127.0.0.1:{metrics}"
        config = self.folder / "config.yaml"
        config.write_text(f"node_id: n1\nraft_dir: {self.folder}/raft\ngrpc_port: {grpc}\nhttps_port: {https}\n"
                          f"metrics_port: {metrics}\netcd_port: {etcd}\ndns_port: {dns}\ntls_cert_file: {self.folder}/server.crt\n"
                          f"tls_key_file: {self.folder}/server.key\ntls_ca_file: {self.ca}\ntls_crl_file: {self.crl}\n{more}")
        self.log = self.folder / "err"
        with open(self.log, "wb") as err:
            process = subprocess.Popen([str(SERVER), "--config", str(config)], stderr=err, stdout=err,
                                       env=clean_environment(**environment))
        self.process = process
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def ready():
            self.assertIsNone(process.poll(), self.log.read_text())
            try:
                return Rest(self.https, self.ca).get("/health/ready").status == 200
            except OSError:
                return False

        wait_until(ready, 60, "a ready node")

    def server_certificate(self, name, days=2):
        cert, key, request, extensions = (self.folder / f"{name}.{end}" for end in ("crt", "key", "csr", "ext"))
        openssl("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", request)
        extensions.write_text("extendedKeyUsage=serverAuth\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-days", str(days), "-extfile", extensions,
                "-out", cert)
        return cert, key

    def use(self, cert, key):
        for source, to in ((key, "server.key"), (cert, "server.crt")):
            shutil.copy(source, self.folder / (to + ".new"))
            os.rename(self.folder / (to + ".new"), self.folder / to)

    def revoke(self, *certs):
        (self.folder / "index.txt").touch()
        (self.folder / "ca.cnf").write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={self.folder}/index.txt\ndefault_md=sha256\n"
                                            "default_crl_days=1\n")
        common = ("ca", "-config", self.folder / "ca.cnf", "-cert", self.ca, "-keyfile", self.ca_key)
        for cert in certs:
            openssl(*common, "-revoke", cert)
        openssl(*common, "-gencrl", "-out", self.folder / "crl.new")
        os.rename(self.folder / "crl.new", self.crl)

    def client(self):
        rest = Rest(self.https, self.ca, cert=self.client_cert[0], key=self.client_cert[1])
        self.addCleanup(rest.close)
        return rest

    @staticmethod
    def pin(cert):
        public = openssl("pkey", "-pubin", "-outform", "DER", stdin=openssl("x509", "-in", cert, "-noout", "-pubkey").stdout).stdout
        return "sha256/" + base64.b64encode(hashlib.sha256(public).digest()).decode()

    def lets_in(self, cert):
        rest = Rest(self.https, self.ca, cert=cert[0], key=cert[1])
        try:
            return rest.get("services").status == 200
        except OSError:
            return False
        finally:
            rest.close()

    def test_one_that_nobody_renews_is_told_before_it_ends(self):
        said = "a certificate is about to end and was not renewed"
        self.assertNotIn(said, self.log.read_text(), "it has two days")
        clock = self.folder / "clock"
        clock.write_bytes(struct.pack("<q", 40 * 3600 * 1_000_000))
        # Eight hours are left of two days, which is less than a quarter of its life.
        self.start(UCCP_TEST_WALL_OFFSET=str(clock))
        line = wait_until(lambda: next((json.loads(line) for line in self.log.read_text().splitlines() if said in line), None), 20, said)
        self.assertEqual((line["level"], line["category"], line["fields"]["certificate"]), ("WARN", "security", "server"))
        self.assertTrue(7 * 3600 < int(line["fields"]["seconds_left"]) <= 8 * 3600, line)
        left = metric(self.metrics, "uccp_certificate_expiry_seconds")['{certificate="server"}']
        self.assertTrue(7 * 3600 < left <= 8 * 3600, left)
        # An hour before is early enough for whoever says so; the metric shows that it was looked at.
        self.start("certificate_alert: 1h\n", UCCP_TEST_WALL_OFFSET=str(clock))
        self.assertGreater(metric(self.metrics, "uccp_certificate_expiry_seconds")['{certificate="server"}'], 3600)
        self.assertNotIn(said, self.log.read_text())

    def test_only_pinned_keys_count_if_there_are_pins(self):
        second = credentials.client_certificate(self.folder, "eve", self.ca, self.ca_key, "viewer")
        self.assertTrue(self.lets_in(self.client_cert) and self.lets_in(second))
        # Of the client, then of the authority.
        self.start(f"tls_client_pins: {self.pin(self.client_cert[0])}\n")
        self.assertTrue(self.lets_in(self.client_cert))
        self.assertFalse(self.lets_in(second))
        for port in (self.grpc, self.https):
            done = openssl("s_client", "-connect", port, "-CAfile", self.ca, "-cert", second[0], "-key", second[1], "-ign_eof",
                           stdin=b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", check=False)
            self.assertRegex(done.stderr.decode() + done.stdout.decode(), "alert", port)
        self.start(f"tls_client_pins: sha256/{'A' * 43}=, {self.pin(self.ca)}\n")
        self.assertTrue(self.lets_in(self.client_cert) and self.lets_in(second))
        done = subprocess.run([SERVER, "dev", "--data-dir", self.folder / "other", "--ports", "auto", "--no-agent",
                               "--tls-client-pins", self.pin(self.ca)], capture_output=True, timeout=60, env=clean_environment())
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"tls_ca_file", done.stderr)

    def test_files_that_change_are_used_without_a_restart(self):
        self.assertEqual(field(shown_by(self.https)[0], "subject"), "CN = first")
        self.use(*self.server_certificate("second"))
        for port in (self.https, self.grpc):
            wait_until(lambda: field(shown_by(port, self.ca)[0], "subject") == "CN = second", 30, "the second certificate")
        # What cannot be used is said, and changes nothing.
        (self.folder / "server.crt").write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
        wait_until(lambda: metric(self.metrics, "uccp_certificate_failures_total").get("", 0) >= 1, 30, "a failure")
        self.assertEqual(field(shown_by(self.https, self.ca)[0], "subject"), "CN = second")
        self.use(*self.server_certificate("third"))
        wait_until(lambda: field(shown_by(self.https, self.ca)[0], "subject") == "CN = third", 30, "the third certificate")
        self.assertIn("new certificates cannot be used", self.log.read_text())

    def test_a_list_that_names_a_client_ends_its_connection(self):
        rest = self.client()
        self.assertEqual(rest.get("services").status, 200)
        self.revoke(self.client_cert[0])
        wait_until(lambda: is_cut(rest.connection), 30, "the end of the connection")
        with self.assertRaises((OSError, http.client.HTTPException)):
            self.client().get("services")
        self.assertEqual(metric(self.metrics, "uccp_crl_entries"), {"": 1})
        self.assertGreater(metric(self.metrics, "uccp_crl_next_update_seconds")[""], 3600)
        # A list that cannot be read is not taken, and the one before goes on to count.
        self.crl.write_text("-----BEGIN X509 CRL-----\nnone\n-----END X509 CRL-----\n")
        wait_until(lambda: metric(self.metrics, "uccp_certificate_failures_total").get("", 0) >= 1, 30, "a failure")
        with self.assertRaises((OSError, http.client.HTTPException)):
            self.client().get("services")

    def test_the_own_authority_has_nothing_to_rotate(self):
        token = credentials.token(self.folder / "raft" / "pki" / "token.key")
        answer = Rest(self.https, self.ca, token=token).post("certificates:rotate", {})
        self.assertEqual((answer.status, answer.reason), (412, "AUTHORITY_OUTSIDE"), answer)


class ThreeNodes(unittest.TestCase):
    def test_all_nodes_and_agents_follow_a_new_authority(self):
        require(SERVER, CLI, AGENT)
        cluster = Cluster(agents=1)
        self.addCleanup(cluster.close)
        cluster.start()
        bundle = cluster.base / "ca.crt"
        shutil.copy(cluster.context["ca"], bundle)
        load = [Load(cluster.node(name)["https"], bundle, cluster.context["token"], leaders=3) for name in cluster.names()]
        for thread in load:
            thread.start()
        def listed():
            return json.loads(cluster.cli_ok("certificate", "list", "-o", "json"))

        def of_nodes():
            """A server's and a node's certificate of each of three, once all have told of theirs."""
            serials = {c["serial"] for c in listed() if c["kind"] != "AUTHORITY"}
            return serials if len(serials) == 6 else None

        before = wait_until(of_nodes, 30, "six certificates")
        made = rotate(cluster.cli, "--scope", "AUTHORITY", "--overlap", "12s")["certificates"][0]

        # Clients get the new authority from the cluster, in the first half of the overlap.
        (cluster.base / "ca.new").write_text(cluster.rest("n1").get("certificates").json["caPem"])
        os.rename(cluster.base / "ca.new", bundle)
        self.assertEqual(len(names_of(bundle.read_text())), 2)
        for name in cluster.names():
            for port in ("https", "grpc", "etcd"):
                wait_until(lambda: made["subject"] in field(shown_by(cluster.node(name)[port])[0], "issuer"), 30, f"{port} of {name}")
        wait_until(lambda: made["subject"] in field(shown_by(cluster.node("n2")["raft"])[0], "issuer"), 30, "the peers' port")
        def trusted_by(name):
            client = Rest(cluster.node(name)["https"], bundle, token=cluster.context["token"])
            try:
                told = client.get("certificates").json["certificates"]
            finally:
                client.close()
            return [c["fingerprint"] for c in told if c["kind"] == "AUTHORITY"]

        for name in cluster.names():
            wait_until(lambda: trusted_by(name) == [made["fingerprint"]], 30, f"the end of the old authority on {name}")
        for thread in load:
            thread.stop()
        self.assertEqual([thread.failures for thread in load], [[], [], []])
        # `uccp cluster context` takes over the new authority, and makes new certificates for the command line.
        cluster.start()
        self.assertTrue(before.isdisjoint({c["serial"] for c in listed()}))
        cluster.wait_equal(cluster.names())
        # The agent has got a certificate of its own meanwhile.
        identity = cluster.dir / "agents" / "a1" / "identity"
        wait_until(lambda: (identity / "based-on").exists() and made["subject"] in
                   field((identity / "agent.crt").read_text(), "issuer"), 60, "the agent's new certificate")
        task = cluster.cli("task", "submit", "--follow", "--", "echo", "done")
        self.assertEqual((task.returncode, task.stdout), (0, b"done\n"), task.stderr)
        # A node that starts again finds the others.
        cluster.kill("n3")
        cluster.start()
        cluster.wait_equal(cluster.names())


if __name__ == "__main__":
    unittest.main()
