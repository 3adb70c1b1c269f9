"""Pure code between bytes and values: no loop, no socket, no clock."""
