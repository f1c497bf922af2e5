"""Clients: accepted, logged in, served, cancelled and let go."""
