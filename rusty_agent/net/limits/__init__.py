"""Decides who may send now, by the limits of a provider and by what is found out about its endpoint."""
