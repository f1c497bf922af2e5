"""The operators' side: one set of views and actions, and their faces in SQL, HTTP and metrics."""
