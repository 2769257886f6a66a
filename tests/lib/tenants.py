"""A node with two tenants, each with an admin of its own: one keeps something, the other tries to get at it."""
from lib.uccp import NodeTest

PASSWORD = "four small words here"
# What the victim keeps, beside its names: these never travel with a request of the other tenant.
SECRET = "kept-by-the-victim-4711"


class TwoTenants(NodeTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.admin = cls.node.client()
        cls.addClassCleanup(cls.admin.close)
        cls.victim = cls.tenant("victim")
        cls.rival = cls.tenant("rival")

    @classmethod
    def must(cls, response):
        assert response.status < 300, response
        return response.json if response.body else None

    @classmethod
    def tenant(cls, name):
        """A tenant with an admin, and a client of that admin."""
        cls.must(cls.admin.post("tenants", {"name": name}))
        cls.must(cls.admin.post(f"users?tenant={name}", {"name": f"{name}-admin", "password": PASSWORD}))
        cls.must(cls.admin.post(f"bindings?tenant={name}", {"role": "admin", "members": [f"{name}-admin"]}))
        token = cls.must(cls.admin.post("tokens:signIn", {"name": f"{name}-admin", "tenant": name, "password": PASSWORD}))
        rest = cls.node.client(token=token["accessToken"], timeout=30)
        cls.addClassCleanup(rest.close)
        return rest
