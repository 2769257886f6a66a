"""What a registration says about an instance is kept, answered by every read, and survives a kill of the server."""
from lib.uccp import NodeTest


class Metadata(NodeTest):
    agent = False

    def round_trip(self, **fields):
        """Registers with `fields` and wants them back: from the answer, by id, by discovery, and after kill -9."""
        name = self._testMethodName.replace("test_", "").replace("_", "-")[:60]
        body = {"serviceName": name, "address": "10.9.0.1", "port": 9000, "ttl": "600s", **fields}
        made = self.rest.post("services", body)
        self.assertEqual(made.status, 201, made)
        self.node.restart()
        by_id = self.rest.get(f"services/{made.json['id']}").json
        found = self.rest.get("services/discover", name=body["serviceName"], consistency="linearizable").json["services"]
        self.assertEqual(len(found), 1, found)
        for answer in (made.json, by_id, found[0]):
            for field, value in fields.items():
                self.assertEqual(answer.get(field), value, field)
        return made.json

    def test_name_version_and_type(self):
        self.round_trip(version="1.4.2", type="http-api")

    def test_address_and_ports(self):
        self.round_trip(address="10.9.0.7", port=8443, ports={"admin": 9001, "grpc": 9002})

    def test_protocols(self):
        self.round_trip(protocol="grpc", protocols=["grpc", "http/2", "websocket"])

    def test_resource_requirements_and_limits(self):
        self.round_trip(resourceRequirements={"cpu": 0.5, "memory": 64 << 20}, resourceLimits={"cpu": 2, "memory": 1 << 30})

    def test_health_check_endpoints(self):
        self.round_trip(healthCheck={"kind": "HTTP", "endpoint": "/health", "interval": "10s", "timeout": "2s"})

    def test_capabilities_and_feature_flags(self):
        self.round_trip(capabilities=["payments.refund", "payments.charge"], featureFlags={"beta": True, "dark-mode": False})
        found = self.rest.get("services/discover", name="capabilities-and-feature-flags", capabilities="payments.refund",
                              consistency="linearizable").json["services"]
        self.assertEqual(len(found), 1)
        self.assertEqual(self.rest.get("services/discover", name="capabilities-and-feature-flags",
                                       capabilities="payments.void", consistency="linearizable").json["services"], [])

    def test_sla_requirements(self):
        self.round_trip(sla={"availability": 0.999, "latencyP99": "0.250s", "requestsPerSecond": 1000})

    def test_region_and_zone(self):
        self.round_trip(region="eu-west", zone="eu-west-1b")
        self.assertEqual(self.rest.get("services/discover", name="region-and-zone", region="us-east",
                                       consistency="linearizable").json["services"], [])

    def test_labels_and_annotations(self):
        self.round_trip(labels={"tier": "web", "team": "shop"}, annotations={"runbook": "https://wiki/run"})

    def test_dependencies(self):
        self.round_trip(dependencies=[{"serviceName": "ledger"}, {"serviceName": "stock"}])
