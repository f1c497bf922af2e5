"""Server connections: opened, pooled, lent to sessions, cleaned, watched and closed."""
