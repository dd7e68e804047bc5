"""What a failed operation says, and what its socket says: every fault on every kind of socket.

``python -m tests.failures`` brings real connections to their end, asks
``stalepool.sockets.failure`` at the moment of failure, and prints what was raised, what ``poll(0)``
said and what was judged.
"""
