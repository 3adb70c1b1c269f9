"""Counting a run of many calls while it goes on, and showing it: latencies, rates, tokens, cost, time left."""
