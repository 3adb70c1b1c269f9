"""The event loop's side: connections, attempts, retries."""
