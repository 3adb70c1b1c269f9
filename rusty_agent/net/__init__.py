"""Everything that needs the event loop: connections, attempts, retries."""
