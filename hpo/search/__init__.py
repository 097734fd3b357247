"""The search: pure functions and objects, without files, Ray or a clock."""
