"""Sockets: what the kernel and the TLS layer know of them. No module here knows a connection."""
