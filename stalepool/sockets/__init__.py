"""Sockets: what the kernel and TLS know. These modules are handed sockets, never a connection."""
