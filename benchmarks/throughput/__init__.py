"""How fast ``count`` is, beside what bounds it and what one would write instead."""
