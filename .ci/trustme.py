"""A stand-in for trustme, for a Python that has none: what stalepool_testing asks of it.

The certificates are beside it, and were made by the real one: ``.ci/free-threaded`` says how.
"""

import os

_HERE = os.path.dirname(os.path.abspath(__file__))


class Pem:
    """A PEM file; ``write_to_path()`` copies it."""

    def __init__(self, name):
        self.path = os.path.join(_HERE, name)

    def write_to_path(self, path):
        with open(self.path, "rb") as one, open(path, "wb") as other:
            other.write(one.read())


class CA:
    """The authority; it has issued one certificate, for this machine's own names."""

    cert_pem = Pem("ca.pem")

    def configure_trust(self, context):
        context.load_verify_locations(self.cert_pem.path)

    def issue_cert(self, *hosts):
        return LeafCert()


class LeafCert:
    """The certificate, with its key."""

    private_key_and_cert_chain_pem = Pem("server.pem")

    def configure_cert(self, context):
        context.load_cert_chain(self.private_key_and_cert_chain_pem.path)
