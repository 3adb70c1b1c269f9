"""Who may send now: the limits of a provider, and what is found out about its endpoint."""
