from faults import no_waiting_for_the_disk  # noqa: F401
from tiny import one_seeded_thread  # noqa: F401
