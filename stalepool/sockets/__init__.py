"""Sockets: what the kernel and TLS know of them. No module here knows urllib3's connections."""
