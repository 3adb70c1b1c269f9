"""Adapters to other frameworks, each a module with an extra of its own.

In: a framework's data. Out: the same data, with answers. Never touched: what the framework does with it; each other.
"""
