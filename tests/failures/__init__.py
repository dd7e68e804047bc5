"""What a failed operation raises, what ``poll(0)`` says of its socket, and what is judged."""
