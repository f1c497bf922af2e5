"""The rules of conversations: which replies are owed, which statements and settings live where."""
