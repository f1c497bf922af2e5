"""May it come in: counted rights of tenants and tiers, and who is served next."""
