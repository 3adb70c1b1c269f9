"""Counting a run of many calls while it goes on, and showing its latencies, rates, tokens, cost and time left."""
