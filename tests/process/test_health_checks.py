# timeout: 300
"""Active health checks against real listeners: HTTP, HTTPS, TCP, gRPC; thresholds, weight, removal, circuits, many nodes."""
import concurrent.futures
import http.server
import re
import signal
import socket
import socketserver
import ssl
import subprocess
import tempfile
import threading
import unittest
import urllib.request

from lib.cluster import Cluster
from lib.wait import wait_until
from test_services import ServicesTest

try:
    import grpc
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv-test is made by tools/setup from tests/clients/requirements.txt"

FAST = {"interval": "1s", "timeout": "0.5s", "unhealthyThreshold": 2}


class Web:
    """An HTTP server that answers `status`, and counts."""

    def __init__(self, tls=None):
        web = self
        self.status, self.seen, self.headers = 200, [], {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                web.seen.append(self.path)
                web.headers = dict(self.headers)
                self.send_response(web.status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_):
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, *_):  # a client that does not trust us
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def self_signed():
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", f"{directory}/key", "-out", f"{directory}/cert", "-subj", "/CN=127.0.0.1", "-days", "2"],
                       check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(f"{directory}/cert", f"{directory}/key")
        return context


class ChecksTest(ServicesTest):
    feature_level = 2

    def web(self, **options):
        web = Web(**options)
        self.addCleanup(web.close)
        return web

    def service(self, identity):
        return self.rest.get(f"services/{identity}", consistency="linearizable").json

    def wait_health(self, identity, status, reason=""):
        def reached():
            seen = self.service(identity)
            return seen if seen.get("healthStatus") == status and reason in seen.get("healthReason", "") else None
        return wait_until(reached, what=f"{identity} to be {status}")


class Kinds(ChecksTest):
    def test_http_asks_the_path_with_its_headers(self):
        web = self.web()
        check = {"kind": "HTTP", "endpoint": "/ready?deep=1", "headers": {"X-Probe": "yes"}, **FAST}
        own = self.register("h", "127.0.0.1", web.port, healthCheck=check)["id"]
        wait_until(lambda: len(web.seen) >= 2, what="two checks")
        self.assertEqual(set(web.seen), {"/ready?deep=1"})
        self.assertEqual(web.headers.get("X-Probe"), "yes")
        web.status = 503
        seen = self.wait_health(own, "UNHEALTHY", "HTTP status 503")
        self.assertFalse(seen.get("healthy", False))
        self.assertEqual(self.found("h"), [])
        self.assertEqual(seen["circuitState"], "OPEN")
        web.status = 204
        self.wait_health(own, "HEALTHY")
        wait_until(lambda: self.found("h") == [own])

    def test_expected_codes_decide(self):
        web = self.web()
        web.status = 418
        teapot = self.register("codes", "127.0.0.1", web.port, healthCheck={"kind": "HTTP", "expectedCodes": [418], **FAST})
        other = self.register("codes", "127.0.0.1", web.port, id="other-codes", serviceName="codes2",
                              healthCheck={"kind": "HTTP", "expectedCodes": [200], **FAST})
        self.wait_health(other["id"], "UNHEALTHY", "HTTP status 418")
        self.wait_health(teapot["id"], "HEALTHY")

    def test_https_needs_a_certificate_it_trusts(self):
        web = self.web(tls=self_signed())
        strict = self.register("tls1", "127.0.0.1", web.port, healthCheck={"kind": "HTTPS", **FAST})["id"]
        lax = self.register("tls2", "127.0.0.1", web.port, healthCheck={"kind": "HTTPS", "tlsSkipVerify": True, **FAST})["id"]
        self.wait_health(strict, "UNHEALTHY", "SSL certificate")
        wait_until(lambda: "/health" in web.seen)
        self.wait_health(lax, "HEALTHY")

    def test_tcp_wants_a_connection(self):
        listener = socket.create_server(("127.0.0.1", 0))
        own = self.register("tcp", "127.0.0.1", listener.getsockname()[1], healthCheck={"kind": "TCP", **FAST})["id"]
        accepted, _ = listener.accept()
        accepted.close()
        self.wait_health(own, "HEALTHY")
        listener.close()
        self.wait_health(own, "UNHEALTHY", "TCP check of 127.0.0.1")

    @unittest.skipIf(MISSING, MISSING or "")
    def test_grpc_asks_the_health_service(self):
        answers = {"": b"\x08\x01", "shop": b"\x08\x01"}

        class Handler(grpc.GenericRpcHandler):
            def service(self, details):
                if details.method != "/grpc.health.v1.Health/Check":
                    return None

                def check(request, context):
                    name = request[2:].decode()
                    if name not in answers:
                        context.abort(grpc.StatusCode.NOT_FOUND, "unknown")
                    return answers[name]
                return grpc.unary_unary_rpc_method_handler(check)

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        server.add_generic_rpc_handlers((Handler(),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.addCleanup(lambda: server.stop(0).wait())
        own = self.register("g", "127.0.0.1", port, healthCheck={"kind": "GRPC", "endpoint": "shop", **FAST})["id"]
        stranger = self.register("g2", "127.0.0.1", port, healthCheck={"kind": "GRPC", "endpoint": "none", **FAST})["id"]
        self.wait_health(stranger, "UNHEALTHY", "knows no service none")
        self.wait_health(own, "HEALTHY")
        answers["shop"] = b"\x08\x02"
        self.wait_health(own, "UNHEALTHY", "NOT_SERVING")

    def test_a_silent_server_fails_after_the_timeout(self):
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        own = self.register("mute", "127.0.0.1", listener.getsockname()[1], healthCheck={"kind": "HTTP", **FAST})["id"]
        self.wait_health(own, "UNHEALTHY", "no answer within 500 ms")

    def test_addresses_of_no_service_are_not_asked(self):
        own = self.register("meta", "169.254.169.254", 80, healthCheck={"kind": "HTTP", **FAST})["id"]
        self.wait_health(own, "UNHEALTHY", "is an address that is not checked")


class Course(ChecksTest):
    def test_weight_falls_and_rises_with_the_score(self):
        web = self.web()
        slow = {"kind": "HTTP", "interval": "1s", "timeout": "0.5s", "unhealthyThreshold": 100}
        own = self.register("fade", "127.0.0.1", web.port, weight=1000, healthCheck=slow)["id"]
        wait_until(lambda: web.seen)
        wait_until(lambda: self.service(own)["effectiveWeight"] == 1000, what="its whole weight")
        web.status = 500
        weights = []

        def faded():
            seen = self.service(own)
            if not weights or seen["effectiveWeight"] != weights[-1]:
                weights.append(seen["effectiveWeight"])
            return len(weights) >= 4
        wait_until(faded, timeout=30, what="a weight that falls step by step")
        self.assertEqual(weights, sorted(weights, reverse=True))
        seen = self.wait_health(own, "DEGRADED")
        self.assertTrue(0 < seen["healthScore"] < 0.75, seen)
        self.assertEqual(self.found("fade"), [own], "degraded instances are discovered")
        web.status = 200
        wait_until(lambda: self.service(own)["effectiveWeight"] > weights[-1], what="a weight that rises")

    def test_an_instance_that_fails_too_long_is_removed(self):
        web = self.web()
        web.status = 500
        with self.rest.stream("services:watch", query={"name": "doomed"}) as stream:
            stream.until(lambda item: item["kind"] == "SYNCED")
            own = self.register("doomed", "127.0.0.1", web.port, healthCheck={"kind": "HTTP", "deregisterAfter": "10s", **FAST})
            gone = stream.until(lambda item: item["kind"] == "REMOVED", timeout=30)[-1]
            self.assertEqual((gone["service"]["id"], gone["service"]["healthStatus"]), (own["id"], "UNHEALTHY"))
        self.assertEqual(self.rest.get(f"services/{own['id']}", consistency="linearizable").status, 404)

    def test_a_new_registration_does_not_make_it_healthy(self):
        web = self.web()
        web.status = 500
        check = {"kind": "HTTP", **FAST}
        own = self.register("again", "127.0.0.1", web.port, healthCheck=check)["id"]
        self.wait_health(own, "UNHEALTHY")
        self.register("again", "127.0.0.1", web.port, healthCheck=check, labels={"new": "yes"})
        self.assertEqual(self.service(own)["healthStatus"], "UNHEALTHY")
        changed = self.register("again", "127.0.0.1", web.port, healthCheck={**check, "expectedCodes": [500]})
        self.assertEqual(changed["healthStatus"], "HEALTHY", "other checks know nothing yet")

    def test_findings_survive_kill_nine(self):
        web = self.web()
        web.status = 500
        own = self.register("kept", "127.0.0.1", web.port, healthCheck={"kind": "HTTP", **FAST})["id"]
        self.wait_health(own, "UNHEALTHY")
        self.node.restart()
        self.assertEqual(self.service(own)["healthStatus"], "UNHEALTHY")
        web.status = 200
        self.wait_health(own, "HEALTHY")


class Circuits(ChecksTest):
    def test_reports_of_callers_open_and_close_it(self):
        own = self.register("breaker", "10.0.0.1", 80)["id"]

        def report(**counts):
            response = self.rest.post(f"services/{own}:report", counts)
            self.assertEqual(response.status, 200, response)
            return response.json["circuitState"]
        self.assertEqual(report(successes=12, failures=7), "CLOSED")
        self.assertEqual(report(failures=8), "OPEN")
        wait_until(lambda: self.found("breaker") == [])
        self.assertEqual(self.service(own)["healthStatus"], "HEALTHY", "the instance itself says so still")
        trial = wait_until(lambda: self.service(own) if self.service(own)["circuitState"] == "HALF_OPEN" else None,
                           timeout=45, what="a half open circuit")
        self.assertEqual((trial["healthy"], trial["effectiveWeight"]), (True, 10), trial)
        self.assertEqual(report(successes=3), "HALF_OPEN")
        self.assertEqual(report(successes=3), "CLOSED")
        wait_until(lambda: self.service(own)["effectiveWeight"] == 100)
        self.assertEqual(self.rest.post("services/nobody:report", {"failures": 1}).reason, "SERVICE_NOT_FOUND")


class Spread(unittest.TestCase):
    def test_nodes_share_the_checks_and_take_over(self):
        cluster = Cluster(nodes=3)
        self.addCleanup(cluster.close)
        cluster.start()
        web = Web()
        self.addCleanup(web.close)
        names = cluster.names()
        rest = cluster.patient(names[0])
        for number in range(30):
            body = {"serviceName": f"s{number}", "address": "127.0.0.1", "port": web.port, "ttl": "600s",
                    "healthCheck": {"kind": "HTTP", "endpoint": f"/{number}", **FAST}}
            self.assertEqual(rest.post("services", body).status, 201)

        def made(name):
            with urllib.request.urlopen(f"http://{cluster.node(name)['metrics']}/metrics", timeout=20) as response:
                found = re.search(r'^uccp_health_checks_total{outcome="passed"} ([0-9.e+]+)$', response.read().decode(), re.M)
            return float(found.group(1)) if found else 0
        wait_until(lambda: all(made(name) > 0 for name in names), timeout=60, what="all nodes to make checks")
        # Findings are told once all members know of them, which takes all members.
        wait_until(lambda: all(cluster.rest(name).get("version").json["featureLevel"] >= 2 for name in names), timeout=60,
                   what="the newest feature level")
        victim = cluster.leader("core")
        cluster.kill(victim, signal.SIGKILL)
        web.status = 500
        left = cluster.patient(next(name for name in names if name != victim))

        def all_down():
            answer = left.get("services", pageSize=100, consistency="linearizable")
            return answer.status == 200 and all(s["healthStatus"] == "UNHEALTHY" for s in answer.json["services"])
        wait_until(all_down, timeout=90, what="the others to find out all of it")
