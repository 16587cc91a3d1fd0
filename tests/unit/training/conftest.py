from tiny import one_seeded_thread  # noqa: F401
