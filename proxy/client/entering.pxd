# The module is compiled; nothing of it is called in C.
