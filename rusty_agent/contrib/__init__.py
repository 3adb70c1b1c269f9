"""Adapters to other frameworks, each a module with an extra of its own.

In: their data. Out: their data, with answers. Never touched: what they do with it, and each other.
"""
